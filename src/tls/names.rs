//! Which certificate serves which name (RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Identity;

/// Certificates under the names they are for; several of one name differ in their keys.
#[derive(Debug)]
pub(super) struct ByName {
    keys: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(identities: Vec<Identity>) -> Self {
        let mut keys = HashMap::<String, Vec<_>>::new();
        let mut all = Vec::new();
        for identity in identities {
            for name in identity.names {
                keys.entry(name.to_ascii_lowercase()).or_default().push(Arc::clone(&identity.key));
            }
            all.push(identity.key);
        }
        Self { keys, all }
    }

    /// Those for a name: under the name itself, else under the wildcard in place of its first label (RFC 6125 section
    /// 6.4.3), else all.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.all };
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.keys.get(&format!("*.{parent}")));
        self.keys.get(&name).or_else(wildcard).unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for ByName {
    /// The first whose key the client can check; where it can check none, the handshake fails.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        self.of(hello.server_name()).iter().find(fits).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::identity;

    #[test]
    fn a_name_is_served_by_its_own_certificate_then_by_a_wildcard_then_by_the_first() {
        let names = ByName::new(vec![
            identity(&["first.example"]),
            identity(&["shop.example", "www.shop.example"]),
            identity(&["*.shop.example"]),
        ]);
        let index = |name: Option<&str>| {
            let found = &names.of(name)[0];
            names.all.iter().position(|key| Arc::ptr_eq(key, found)).expect("one of them")
        };
        assert_eq!(index(Some("shop.example")), 1);
        assert_eq!(index(Some("WWW.Shop.Example")), 1);
        assert_eq!(index(Some("api.shop.example")), 2);
        assert_eq!(index(Some("a.b.shop.example")), 0, "a wildcard stands for one label");
        assert_eq!(index(Some("elsewhere.example")), 0);
        assert_eq!(index(None), 0);
    }
}
