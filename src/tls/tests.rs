use std::fs;
use std::sync::Arc;

use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::files::{CERTFILE, CLIENT_CA, FileProblem, KEYFILE, TlsFiles};
use super::pem::{self, Wrong};
use super::{Configs, Identity, provider};

/// A certificate for these names, and its key.
fn certificate(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

pub(super) fn identity(names: &[&str]) -> Identity {
    let (certificate, key) = certificate(names);
    pem::identity(certificate.as_bytes(), key.as_bytes(), None).expect("a pair")
}

/// A folder with `cert.pem` and `key.pem`.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn with_certificate(name: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write_certificate(name);
        folder
    }

    pub(super) fn write_certificate(&self, name: &str) {
        let (certificate, key) = certificate(&[name]);
        self.write("cert.pem", &certificate);
        self.write("key.pem", &key);
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).expect("the folder can be written to");
    }

    pub(super) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).expect("it is there")
    }

    pub(super) fn remove(&self, file: &str) {
        fs::remove_file(self.0.path().join(file)).expect("it is there");
    }

    pub(super) fn files(&self) -> TlsFiles {
        let pairs = vec![(self.0.path().join("cert.pem"), self.0.path().join("key.pem"))];
        TlsFiles { pairs, passphrase: None, client_ca: None }
    }

    fn problems(&self, files: &TlsFiles) -> Vec<FileProblem> {
        files.configs(&files.read().expect("they are there")).expect_err("they can't be used")
    }
}

/// Whether a client that trusts the folder's certificate alone is served with it.
pub(super) fn is_served_with(configs: &Configs, folder: &Folder, name: &'static str) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.0.path().join("cert.pem")).expect("PEM")).expect("a certificate");
    let mut server = ServerConnection::new(Arc::clone(&configs.inbound)).expect("a server");
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().expect("a name")).expect("a client");
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets().expect("the client is well-behaved");
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut wire.as_slice()).expect("memory");
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn keys_are_read_in_every_form_that_openssl_writes() {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    let pair = KeyPair::from_pem(&pem).expect("a key");
    let certificate = CertificateParams::new(vec!["a.example".to_owned()]).expect("names").self_signed(&pair);
    let certificate = certificate.expect("a certificate").pem();
    let rsa = key.rsa().expect("RSA");
    let word = b"open sesame";
    let plain = [key.private_key_to_pem_pkcs8(), rsa.private_key_to_pem()];
    let encrypted = [
        key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), word),
        key.private_key_to_pem_pkcs8_passphrase(Cipher::des_ede3_cbc(), word),
        rsa.private_key_to_pem_passphrase(Cipher::aes_256_cbc(), word),
        rsa.private_key_to_pem_passphrase(Cipher::des_ede3_cbc(), word),
    ];
    let read = |key: &[u8], passphrase| pem::identity(certificate.as_bytes(), key, passphrase);
    for key in plain {
        read(&key.expect("PEM"), None).expect("it needs no passphrase");
    }
    for key in encrypted {
        let key = key.expect("PEM");
        let identity = read(&key, Some("open sesame")).expect("the passphrase is right");
        assert_eq!(identity.names, ["a.example"]);
        assert!(matches!(read(&key, None), Err(Wrong::Key(wrong)) if wrong.contains("encrypted")));
        assert!(matches!(read(&key, Some("guess")), Err(Wrong::Passphrase(_))));
    }
}

#[test]
fn every_file_that_can_not_be_used_is_named_with_its_setting() {
    let folder = Folder::with_certificate("a.example");
    let mut files = folder.files();
    files.pairs.push(("/nope".into(), "/neither".into()));
    files.client_ca = Some("/nor".into());
    let problems = files.read().expect_err("three are missing");
    let settings: Vec<_> = problems.iter().map(|problem| problem.setting).collect();
    assert_eq!(settings, [CERTFILE, KEYFILE, CLIENT_CA]);
    assert!(problems[0].wrong.starts_with("Could not resolve HTTPS_CERTFILE: \"/nope\""), "{}", problems[0].wrong);

    let files = folder.files();
    folder.write("key.pem", &certificate(&["b.example"]).1);
    assert!(folder.problems(&files)[0].wrong.contains("not that of the certificate"));
    folder.write("key.pem", "");
    assert_eq!(folder.problems(&files)[0].setting, KEYFILE);
    folder.write("cert.pem", "");
    assert_eq!(folder.problems(&files)[0].setting, CERTFILE);
    folder.write_certificate("a.example");
    folder.write("ca.pem", "nothing");
    let files = TlsFiles { client_ca: Some(files.pairs[0].0.with_file_name("ca.pem")), ..files };
    assert_eq!(folder.problems(&files)[0].setting, CLIENT_CA);
}

#[test]
fn the_expiry_is_that_of_the_certificate_that_expires_first() {
    let folder = Folder::with_certificate("a.example");
    let configs = folder.files().configs(&folder.files().read().expect("files")).expect("a pair");
    // rcgen's default is the year 4096.
    assert_eq!(configs.expires_unix_s, 67_090_118_400);
    assert!(is_served_with(&configs, &folder, "a.example"));
}

#[test]
fn neither_passphrase_nor_keys_are_shown() {
    let folder = Folder::with_certificate("a.example");
    let files = TlsFiles { passphrase: Some("open sesame".into()), ..folder.files() };
    let shown = format!("{files:?} {:?}", files.read());
    assert!(!shown.contains("sesame") && !shown.contains("PRIVATE"), "{shown}");
}
