//! Drills.

use muster_model::Verdict;

use crate::common::Shop;

#[test]
fn a_drill_of_a_sound_service_passes() {
    let shop = Shop::open("drill-passes");
    let workspace = shop.protected();
    shop.check(&workspace, Verdict::Pass, "");
}
