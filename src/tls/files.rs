//! The files that settings name, read together so that both ports serve with one state of them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::pem::{self, Wrong};
use super::{Configs, configs};

/// Settings that name the files.
pub const CERTFILE: &str = "HTTPS_CERTFILE";
/// See [`CERTFILE`].
pub const KEYFILE: &str = "HTTPS_KEYFILE";
/// See [`CERTFILE`].
pub const KEYFILE_PASS: &str = "HTTPS_KEYFILE_PASS";
/// See [`CERTFILE`].
pub const CLIENT_CA: &str = "INTERNAL_CLIENT_CA";

/// Where certificates and keys are. Its debug form hides the passphrase.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain and key, the default first.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Passphrase of the keys.
    pub passphrase: Option<String>,
    /// Authorities of the clients of the internal port.
    pub client_ca: Option<PathBuf>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsFiles")
            .field("pairs", &self.pairs)
            .field("client_ca", &self.client_ca)
            .finish_non_exhaustive()
    }
}

/// What the files held at one time. Its debug form hides the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Contents").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}

/// A file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The setting that names it.
    pub setting: &'static str,
    /// What is wrong.
    pub wrong: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}. {}", self.setting, self.wrong, self.remedy)
    }
}

impl TlsFiles {
    /// Reads all of them; blocks on the disk.
    ///
    /// # Errors
    /// Every file that can't be read.
    pub fn read(&self) -> Result<Contents, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let mut read = |setting, path: &Path| {
            fs::read(path).unwrap_or_else(|error| {
                problems.push(FileProblem {
                    setting,
                    wrong: format!("Could not resolve {setting}: {path:?} ({error})"),
                    remedy: "Give the path of a PEM file that this process may read",
                });
                Vec::new()
            })
        };
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for (certificate, key) in &self.pairs {
            pairs.push((read(CERTFILE, certificate), read(KEYFILE, key)));
        }
        let client_ca = self.client_ca.as_ref().map(|path| read(CLIENT_CA, path));
        if problems.is_empty() { Ok(Contents { pairs, client_ca }) } else { Err(problems) }
    }

    /// Makes of their contents what the ports serve with.
    ///
    /// # Errors
    /// Every file that doesn't hold what it should.
    pub fn configs(&self, contents: &Contents) -> Result<Configs, Vec<FileProblem>> {
        let mut problems = Vec::new();
        let mut identities = Vec::new();
        for ((certificate, key), (chain_path, key_path)) in contents.pairs.iter().zip(&self.pairs) {
            match pem::identity(certificate, key, self.passphrase.as_deref()) {
                Ok(identity) => identities.push(identity),
                Err(wrong) => problems.push(problem(wrong, chain_path, key_path)),
            }
        }
        let client_ca = contents.client_ca.as_deref().map(pem::authorities).transpose().map_err(|wrong| FileProblem {
            setting: CLIENT_CA,
            wrong,
            remedy: "Give a PEM file with the authorities of your clients",
        });
        match client_ca {
            Err(wrong) => problems.push(wrong),
            Ok(client_ca) if problems.is_empty() => match configs(identities, client_ca) {
                Ok(configs) => return Ok(configs),
                Err(error) => problems.push(FileProblem {
                    setting: CERTFILE,
                    wrong: error.to_string(),
                    remedy: "Use an RSA, ECDSA or Ed25519 certificate",
                }),
            },
            Ok(_) => {}
        }
        Err(problems)
    }
}

fn problem(wrong: Wrong, certificate: &Path, key: &Path) -> FileProblem {
    match wrong {
        Wrong::Certificate(wrong) => FileProblem {
            setting: CERTFILE,
            wrong: format!("{certificate:?}: {wrong}"),
            remedy: "Give a PEM file with the certificate and those between it and its authority",
        },
        Wrong::Key(wrong) => FileProblem {
            setting: KEYFILE,
            wrong: format!("{key:?}: {wrong}"),
            remedy: "Give the certificate's key as PEM, and HTTPS_KEYFILE_PASS if it is encrypted",
        },
        Wrong::Passphrase(wrong) => FileProblem {
            setting: KEYFILE_PASS,
            wrong: format!("{key:?}: {wrong}"),
            remedy: "Set it to the passphrase of HTTPS_KEYFILE",
        },
    }
}
