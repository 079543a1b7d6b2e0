//! Secrets: fetched where a plan's reference points, at the moment they are needed, and zeroed
//! when they are dropped.

use std::{env, fs, io, path::Path, process};

use muster_model::SecretRef;
use zeroize::Zeroizing;

use crate::error::OperationError;

/// Fetches a secret. Files are relative to `folder`, the plan's; their first line counts.
///
/// # Errors
/// Fails when the variable is not set, the file cannot be read, or the command fails.
pub(crate) fn fetch(
    reference: &SecretRef,
    folder: &Path,
) -> Result<Zeroizing<String>, OperationError> {
    let text = match reference {
        SecretRef::Env(name) => variable(name),
        SecretRef::File(path) => fs::read_to_string(folder.join(path)).map(Zeroizing::new),
        SecretRef::Command(argv) => printed(argv, folder),
    };
    let text =
        text.map_err(|source| OperationError::Secret { reference: reference.to_string(), source })?;
    let first = text.split('\n').next().unwrap_or_default();
    Ok(Zeroizing::new(first.trim_end_matches('\r').to_owned()))
}

fn variable(name: &str) -> io::Result<Zeroizing<String>> {
    match env::var(name) {
        Ok(value) => Ok(Zeroizing::new(value)),
        Err(env::VarError::NotPresent) => {
            Err(io::Error::other(format!("the environment variable {name} is not set")))
        }
        Err(env::VarError::NotUnicode(_)) => {
            Err(io::Error::other(format!("the environment variable {name} is not UTF-8")))
        }
    }
}

fn printed(argv: &[String], folder: &Path) -> io::Result<Zeroizing<String>> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let output = process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(process::Stdio::null())
        .stderr(process::Stdio::inherit())
        .output()?;
    let stdout = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(io::Error::other(format!("{program} ended with {}", output.status)));
    }
    let text = std::str::from_utf8(&stdout)
        .map_err(|_| io::Error::other(format!("{program} printed no UTF-8")))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use muster_model::{Class, Fault as _};

    use super::*;

    #[test]
    fn the_first_line_is_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "correct horse\r\nsecond\n").unwrap();
        let secret = fetch(&SecretRef::File("secret".to_owned()), folder.path()).unwrap();
        assert_eq!(secret.as_str(), "correct horse");
        let argv = ["printf", "a\\nb"].map(str::to_owned).to_vec();
        assert_eq!(fetch(&SecretRef::Command(argv), folder.path()).unwrap().as_str(), "a");
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_leaks() {
        let folder = Path::new("/");
        let missing = fetch(&SecretRef::Env("MUSTER_NO_SUCH".to_owned()), folder).unwrap_err();
        assert!(missing.one_line().contains("MUSTER_NO_SUCH is not set"));
        assert_eq!(missing.class(), Class::Input);
        let missing = fetch(&SecretRef::File("no-such-secret".to_owned()), folder).unwrap_err();
        assert_eq!((missing.class(), missing.code()), (Class::Input, "secret-missing"));
        let source = io::ErrorKind::PermissionDenied.into();
        let denied = OperationError::Secret { reference: "file:x".to_owned(), source };
        assert_eq!(denied.class(), Class::Denied);
        let argv = ["sh", "-c", "echo hush; exit 3"].map(str::to_owned).to_vec();
        let failed = fetch(&SecretRef::Command(argv), folder).unwrap_err();
        let causes = std::error::Error::source(&failed).unwrap().to_string();
        assert!(!causes.contains("hush") && causes.contains("exit status: 3"), "{causes}");
    }
}
