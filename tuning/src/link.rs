//! The fastest network card: what the machine can send, whatever its cores could deliver.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A network card.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Link {
    /// Its name, e.g. `eth0`.
    pub name: String,
    /// Its speed in bits a second.
    pub bits_per_s: u64,
}

/// The fastest card that is up and says its speed; `None` where none does (virtual machines, containers).
#[must_use]
pub(crate) fn fastest() -> Option<Link> {
    fastest_in(Path::new("/sys/class/net"))
}

fn fastest_in(folder: &Path) -> Option<Link> {
    let cards = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let card = entry.path();
        let read = |file: &str| fs::read_to_string(card.join(file)).ok();
        // Only real cards have a device; the speed of bridges and virtual pairs is made up.
        let is_real = card.join("device").exists();
        let is_up = read("operstate")?.trim() == "up";
        let mbit_per_s: u64 = read("speed")?.trim().parse().ok()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        (is_real && is_up && mbit_per_s > 0).then(|| Link { name, bits_per_s: mbit_per_s * 1_000_000 })
    });
    cards.max_by_key(|link| link.bits_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(folder: &Path, name: &str, speed: &str, state: &str, is_real: bool) {
        let card = folder.join(name);
        fs::create_dir_all(&card).unwrap();
        fs::write(card.join("speed"), speed).unwrap();
        fs::write(card.join("operstate"), state).unwrap();
        if is_real {
            fs::create_dir(card.join("device")).unwrap();
        }
    }

    #[test]
    fn the_fastest_real_card_that_is_up_is_found() {
        let folder = tempfile::tempdir().unwrap();
        card(folder.path(), "eth0", "10000\n", "up\n", true);
        card(folder.path(), "eth1", "25000\n", "up\n", true);
        card(folder.path(), "eth2", "100000\n", "down\n", true);
        card(folder.path(), "veth3", "400000\n", "up\n", false);
        card(folder.path(), "eth4", "-1\n", "up\n", true);
        let expected = Link { name: "eth1".to_owned(), bits_per_s: 25_000_000_000 };
        assert_eq!(fastest_in(folder.path()), Some(expected));
    }

    #[test]
    fn a_machine_whose_cards_say_no_speed_has_no_link() {
        let folder = tempfile::tempdir().unwrap();
        card(folder.path(), "eth0", "-1\n", "up\n", true);
        assert_eq!(fastest_in(folder.path()), None);
        assert_eq!(fastest_in(&folder.path().join("missing")), None);
    }
}
