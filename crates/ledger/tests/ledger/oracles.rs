//! Other people's programs as judges: in-toto's and securesystemslib's Python, openssl.

use std::fs;
use std::path::Path;

use muster_ledger::evidence::{self, DRILL_PREDICATE, TestResult};
use muster_ledger::{Ledger, canonical_json};
use muster_testkit::{Scratch, peers, peers::Peer};
use serde_json::json;

use crate::common::{Member, content, export, repack, three_drills, unpack};

/// The Python that `scripts/test-setup.sh` makes, with the packages of the oracles.
fn python_with_oracles() -> Option<Peer> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python-oracles/bin/python");
    if made.exists() {
        return Some(Peer::new(made).unwrap());
    }
    peers::require("python-oracles")
}

const JUDGE: &str = r#"
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

public, keyid = sys.argv[1], sys.argv[2]
key = SSlibKey(keyid, "ed25519", "ed25519", {"public": public})
for path in sys.argv[3:]:
    document = json.load(open(path))
    envelope = Envelope.from_dict(json.loads(json.dumps(document)))
    assert list(envelope.verify([key], 1)) == [keyid]
    statement = json_format.Parse(envelope.payload, statement_pb2.Statement())
    statement = Statement.copy_from_pb(statement)
    statement.validate()
    if statement.pb.predicate_type.startswith("https://in-toto.io/attestation/test-result/"):
        predicate = json_format.MessageToJson(statement.pb.predicate)
        result = json_format.Parse(predicate, test_result_pb2.TestResult())
        print(result.result, list(result.passed_tests), list(result.warned_tests), list(result.failed_tests))
    else:
        print(statement.pb.predicate_type, statement.pb.subject[0].name)
    for other in ({"payload": "e30="}, {"payloadType": "text/plain"}):
        try:
            Envelope.from_dict(json.loads(json.dumps({**document, **other}))).verify([key], 1)
        except VerificationError:
            continue
        sys.exit(f"{path}: accepted with {other}")
"#;

#[test]
fn envelopes_are_accepted_by_in_toto_and_securesystemslib() {
    let Some(python) = python_with_oracles() else { return };
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(&scratch.join("state")).unwrap();
    let digest = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let subjects = [("plan", digest), ("snapshot", digest)];
    let drill = json!({"drill": 1, "verdict": "pass", "recovery_time_s": 41.25, "note": "é\u{1}"});
    let drill = evidence::statement(&subjects, DRILL_PREDICATE, &drill);
    let configuration = [("muster.yaml", digest)];
    let passed = ["health", "ledger"];
    let result = evidence::test_result(
        &subjects,
        TestResult::Failed,
        &configuration,
        &passed,
        &[],
        &["rto"],
    );
    let paths = [("drill.json", &drill), ("result.json", &result)].map(|(name, statement)| {
        let path = scratch.join(name);
        fs::write(&path, ledger.seal(statement).unwrap().to_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let public: String =
        ledger.verifier().public_key().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut arguments = vec!["-c".to_owned(), JUDGE.to_owned(), public, ledger.verifier().key_id()];
    arguments.extend(paths);
    let output = python.succeed(&arguments).unwrap();
    let expected = format!("{DRILL_PREDICATE} plan\nFAILED ['health', 'ledger'] [] ['rto']\n");
    assert_eq!(output.stdout(), expected);
    // With another key nothing is accepted.
    arguments[2] = digest.to_owned();
    assert_ne!(python.run(&arguments).unwrap().code, Some(0));
}

/// The recipe of the format's description, as it stands there.
fn recipe() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/evidence.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, recipe) = page.split_once("```sh\n# verify-by-hand").unwrap();
    recipe.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_recipe_by_hand_accepts_what_is_sound_and_nothing_else() {
    for tool in ["bash", "openssl", "sha256sum", "tar", "python3"] {
        if peers::require(tool).is_none() {
            return;
        }
    }
    let (scratch, ledger) = three_drills();
    let bytes = export(&ledger, &scratch);
    fs::write(scratch.join("recipe.sh"), recipe()).unwrap();
    let Some(bash) = peers::require("bash") else { return };
    let bash = bash.folder(scratch.path());
    let trust = scratch.join("state/ledger.pub");
    let run = |bytes: &[u8]| {
        fs::write(scratch.join("bundle.tar"), bytes).unwrap();
        bash.run(["recipe.sh", "bundle.tar", trust.to_str().unwrap()]).unwrap()
    };
    let output = run(&bytes);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout(), output.stderr());
    assert!(output.stdout().ends_with("sound: 25 entries, 3 envelopes\n"), "{}", output.stdout());

    let refuse = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut members = unpack(&bytes);
        change(&mut members);
        let output = run(&repack(&members));
        assert!(output.code == Some(1), "{}{}", output.stdout(), output.stderr());
    };
    let replace = |bytes: &mut Vec<u8>, from: &str, to: &str| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from));
        *bytes = text.replacen(from, to, 1).into_bytes();
    };
    refuse(&|members| replace(content(members, "log/entries.jsonl"), "orders", "others"));
    refuse(&|members| replace(content(members, "log/checkpoint"), "\n25\n", "\n24\n"));
    let name =
        unpack(&bytes).into_iter().find(|(name, _)| name.starts_with("envelopes/")).unwrap().0;
    refuse(&|members| replace(content(members, &name), "\"payload\":\"e", "\"payload\":\"f"));
    refuse(&|members| members.retain(|(found, _)| *found != name));
    // Not the manifest's digest, not the trusted key.
    let mut flipped = bytes.clone();
    let at = bytes.windows(4).position(|window| window == b"41 s").unwrap();
    flipped[at] ^= 1;
    assert_eq!(run(&flipped).code, Some(1));
    let other = Ledger::open(&scratch.join("other")).unwrap();
    fs::write(&trust, format!("{}\n", other.verifier())).unwrap();
    assert_eq!(run(&bytes).code, Some(1));
}

#[test]
fn python_writes_the_same_json() {
    let Some(python) = peers::require("python3") else { return };
    let value = json!({
        "b": [1, -2, true, null, "\u{0}\u{1f}\"\\/\u{7f}\u{2028}é€𐐀\n\r\t\u{8}\u{c}"],
        "": {}, "a": [], "é": 0.1, "Z": -1.5, "𐐀": 1, "\u{ffff}": 2,
    });
    let program = "import json,sys; print(json.dumps(json.loads(sys.argv[1]), sort_keys=True, \
                   separators=(',', ':'), ensure_ascii=False), end='')";
    let text = canonical_json(&value);
    let output = python.succeed(["-c", program, &value.to_string()]).unwrap();
    assert_eq!(output.stdout(), text);
}
