//! Drills.

use muster_model::{Disruption, Verdict};

use crate::common::Shop;

#[test]
fn a_drill_of_a_sound_service_passes() {
    let shop = Shop::open("drill-passes");
    let workspace = shop.workspace();
    for report in shop.back_up(&workspace) {
        assert!(report.is_complete(), "{report:?}");
    }
    let result = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
}
