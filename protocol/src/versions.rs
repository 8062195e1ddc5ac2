//! The registry of application versions.

use crate::lenient;
use crate::records::VersionRecord;
use serde::{Deserialize, Serialize};

/// Lists the application's versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListApplicationVersions {}

/// The application's versions, latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListApplicationVersionsResponse {
    /// By `version_timestamp`, newest first.
    #[serde(default, deserialize_with = "lenient::records")]
    pub output: Vec<VersionRecord>,
}

/// Makes a version the latest. An unknown one is ignored by Python and TypeScript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLatestApplicationVersion {
    /// What executors report as their application version.
    pub version_name: String,
}
