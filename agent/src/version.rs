//! The application version when none is given: a hash of the code that would have to be the same for a
//! run to go on under it.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::workflow::Registry;

/// Computes the version from the application's name and the registered workflows' fingerprints. A
/// workflow registered without the macro has none; then the executable's bytes count too, which change
/// with every build.
pub(crate) async fn compute(app_name: &str, registry: &Registry) -> Result<String> {
    let mut workflows: Vec<_> = registry
        .iter()
        .map(|workflow| (&workflow.name, workflow.fingerprint))
        .collect();
    workflows.sort_unstable();
    let mut hash = Sha256::new();
    add(&mut hash, app_name);
    for (name, fingerprint) in &workflows {
        add(&mut hash, name);
        add(&mut hash, fingerprint.unwrap_or_default());
    }
    if workflows
        .iter()
        .any(|(_, fingerprint)| fingerprint.is_none())
    {
        hash.update(executable().await?);
    }
    let digest = hash.finalize();
    Ok(digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Adds a text so that no two lists of texts hash alike.
fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

async fn executable() -> Result<Vec<u8>> {
    let path = std::env::current_exe();
    let bytes = match path {
        Ok(path) => tokio::fs::read(path).await,
        Err(error) => Err(error),
    };
    bytes.map_err(|error| {
        Error::config(
            "app_version",
            format!("the executable cannot be read to compute one ({error}); give a version"),
        )
    })
}
