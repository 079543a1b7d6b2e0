//! Watches: rates are kept, hanging probes delay nobody, stopping is quick.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use muster_drivers::{
    probe::{ProbeSecrets, Prober},
    watch::{Observation, Watch},
};
use muster_model::{Light, Probe, ProbeCheck};

use crate::common::{command, probe, tcp, timed};

const INTERVAL: Duration = Duration::from_millis(50);

fn every(interval: Duration, check: ProbeCheck, timeout: Duration) -> (Probe, ProbeSecrets) {
    (Probe { interval, ..probe(check, timeout) }, ProbeSecrets::default())
}

fn start(
    probes: Vec<(Probe, ProbeSecrets)>,
) -> (Watch, tokio::sync::mpsc::Receiver<Observation>, Instant) {
    let origin = Instant::now();
    let (watch, receive) = Watch::start(&Prober::new().unwrap(), probes, origin);
    (watch, receive, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_probe_delays_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The listener accepts in the kernel and never answers.
    let url = format!("http://{address}/");
    let hanging = ProbeCheck::Http {
        url,
        statuses: vec![200],
        body: None,
        json: Vec::new(),
        redirects: false,
    };
    let long = Duration::from_secs(600);
    let (watch, mut receive, origin) =
        start(vec![every(INTERVAL, hanging, long), every(INTERVAL, tcp(address), long)]);
    let mut samples = Vec::new();
    while samples.len() < 20 {
        let sample = receive.recv().await.unwrap();
        assert_eq!((sample.probe_index, sample.light), (1, Light::Green), "{}", sample.detail);
        samples.push(sample);
    }
    assert!(samples[19].end <= origin.elapsed());
    let ((), took) = timed(watch.stop()).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    while let Some(sample) = receive.recv().await {
        assert_eq!(sample.probe_index, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_probe_never_overlap_nor_bunch() {
    // Longer than its interval: ticks are left out.
    let slow = every(INTERVAL, command(&["sleep", "0.12"], 0, None), Duration::from_secs(60));
    let (watch, mut receive, _) = start(vec![slow]);
    let mut last: Option<Observation> = None;
    for _ in 0..5 {
        let sample = receive.recv().await.unwrap();
        assert_eq!(sample.light, Light::Green, "{}", sample.detail);
        if let Some(last) = last {
            assert!(sample.at >= last.end, "{last:?} {sample:?}");
            assert!(sample.at - last.at >= INTERVAL * 2, "{last:?} {sample:?}");
        }
        last = Some(sample);
    }
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_fixed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = tcp(listener.local_addr().unwrap());
    let (watch, mut receive, _) = start(vec![every(INTERVAL, check, Duration::from_secs(60))]);
    let mut starts = Vec::new();
    while starts.len() < 20 {
        starts.push(receive.recv().await.unwrap().at);
    }
    // However late single ticks come on a busy machine, they do not add up to a higher rate.
    let span = starts[19] - starts[0];
    assert!(span + INTERVAL >= INTERVAL * 19, "{starts:?}");
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_are_red_and_the_watch_goes_on() {
    let hanging = command(&["sleep", "1000"], 0, None);
    let (watch, mut receive, _) = start(vec![every(INTERVAL, hanging, INTERVAL * 2)]);
    for _ in 0..3 {
        let sample = receive.recv().await.unwrap();
        assert_eq!(sample.light, Light::Red);
        assert!(sample.end - sample.at >= INTERVAL * 2);
    }
    drop(watch);
    while receive.recv().await.is_some() {}
}
