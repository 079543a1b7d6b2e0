//! The kit itself against the real tools: what the options for a tool build, it gives back.

use muster_testkit::odd_tree::{self, Options};
use muster_testkit::walker::{Kind, Tolerance, assert_same, walk};
use muster_testkit::{Scratch, fixtures, peers};

#[test]
fn restic_keeps_what_the_options_for_it_build() {
    let Some(restic) = peers::require("restic") else { return };
    let scratch = Scratch::new("restic").unwrap();
    let (source, target) = (scratch.join("source"), scratch.join("target"));
    odd_tree::build(&source, &Options::for_restic()).unwrap();
    let before = walk(&source).unwrap();

    let restic = restic
        .env("RESTIC_REPOSITORY", scratch.join("repository"))
        .env("RESTIC_PASSWORD", "fixture")
        .folder(&source);
    restic.succeed(["init"]).unwrap();
    restic.succeed(["backup", "."]).unwrap();
    restic.succeed(["restore", "latest", "--target", "../target"]).unwrap();

    let tolerance =
        Tolerance { ignore_root: true, may_miss: vec![Kind::Socket], ..Default::default() };
    assert_same(&before, &walk(&target).unwrap(), &tolerance);
    assert_same(&before, &walk(&source).unwrap(), &Tolerance::default());
}

#[test]
fn rustic_keeps_what_the_options_for_it_build() {
    let Some(rustic) = peers::require("rustic") else { return };
    let scratch = Scratch::new("rustic").unwrap();
    let (source, target) = (scratch.join("source"), scratch.join("target"));
    odd_tree::build(&source, &Options::for_rustic()).unwrap();
    let before = walk(&source).unwrap();

    let rustic = rustic
        .env("RUSTIC_REPOSITORY", scratch.join("repository"))
        .env("RUSTIC_PASSWORD", "fixture")
        .folder(&source);
    rustic.succeed(["init"]).unwrap();
    rustic.succeed(["backup", "."]).unwrap();
    rustic.succeed(["restore", "latest", "../target"]).unwrap();

    let tolerance = Tolerance { ignore_root: true, ..Default::default() };
    assert_same(&before, &walk(&target).unwrap(), &tolerance);
}

#[test]
fn restic_restores_fixtures_to_their_listings() {
    let Some(restic) = peers::require("restic") else { return };
    let scratch = Scratch::new("restore").unwrap();
    for name in ["restic-0.14-v1", "restic-0.18-v2-max", "rustic-0.11-v2-level22"] {
        let repository = fixtures::unpack(name, scratch.path()).unwrap();
        let restic = restic
            .clone()
            .env("RESTIC_REPOSITORY", repository)
            .env("RESTIC_PASSWORD", fixtures::PASSWORD)
            .folder(scratch.path());
        let target = format!("{name}-restored");
        restic.succeed(["restore", "latest", "--target", target.as_str()]).unwrap();
        let restored = walk(&scratch.join(&target)).unwrap();
        assert_eq!(restored.lines(), fixtures::listing(name).unwrap(), "{name}");
    }
}
