//! The shipped profiles against made-up machines and this one.

use std::fs;
use std::path::Path;

use super::*;

const LIMITS_TABLE: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    unlimited            bytes
Max open files            1024                 524288               files
Max locked memory         8388608              8388608              bytes
";

/// A machine that has `values` for the kernel settings of the profile, and the limits above.
fn machine(folder: &Path, values: &[(&str, &str)]) -> Machine {
    for (key, value) in values {
        let path = folder.join("sys").join(key.replace('.', "/"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    fs::create_dir_all(folder.join("self")).unwrap();
    fs::write(folder.join("self/limits"), LIMITS_TABLE).unwrap();
    Machine::at(folder.to_owned())
}

fn find<'a>(findings: &'a [Finding], key: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.key == key).unwrap_or_else(|| panic!("no finding for {key}"))
}

#[test]
fn the_shipped_profiles_can_be_read_and_every_setting_compared_says_what_it_buys() {
    let settings = [sysctl(SYSCTL_CONF).unwrap(), limits(LIMITS_CONF).unwrap()].concat();
    assert!(settings.len() > 10);
    for setting in settings {
        assert!(!setting.buys.is_empty(), "{} lacks a reason", setting.key);
    }
    assert!(unit(UNIT).unwrap().iter().any(|setting| setting.key == "ExecStart"));
}

#[test]
fn each_setting_binds_as_its_reason_says() {
    let settings = sysctl(SYSCTL_CONF).unwrap();
    let expected = [
        ("kernel.io_uring_disabled", Bound::Exactly),
        ("net.core.somaxconn", Bound::AtLeast),
        ("net.ipv4.tcp_notsent_lowat", Bound::AtMost),
        ("net.ipv4.tcp_wmem", Bound::MaximumAtMost),
        ("net.ipv4.ip_local_port_range", Bound::Covers),
        ("vm.swappiness", Bound::AtMost),
    ];
    for (key, bound) in expected {
        let setting = settings.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(Bound::of(setting), bound, "{key}");
    }
}

#[test]
fn a_machine_that_follows_the_profile_has_nothing_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let profile = sysctl(SYSCTL_CONF).unwrap();
    let values: Vec<_> = profile.iter().map(|setting| (setting.key.as_str(), setting.value.as_str())).collect();
    let findings = compare_with(&machine(folder.path(), &values));
    let kernel = findings.iter().filter(|finding| finding.key.contains('.'));
    assert_eq!(kernel.clone().count(), profile.len());
    for finding in kernel {
        assert_eq!((finding.verdict, finding.how_to_change.as_str()), (Verdict::Met, ""), "{}", finding.key);
    }
}

#[test]
fn a_setting_that_falls_short_names_both_values_its_reason_and_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let findings = compare_with(&machine(folder.path(), &[("net.core.somaxconn", "4096\n")]));
    let finding = find(&findings, "net.core.somaxconn");
    assert_eq!((finding.verdict, finding.is.as_str()), (Verdict::Missed, "4096"));
    assert_eq!(finding.should, "at least 65535");
    assert!(finding.buys.starts_with("Handshakes that are complete"), "{}", finding.buys);
    assert!(finding.how_to_change.starts_with("sysctl -w net.core.somaxconn='65535'"), "{}", finding.how_to_change);
}

#[test]
fn several_numbers_may_be_parted_by_tabs() {
    let folder = tempfile::tempdir().unwrap();
    let findings = compare_with(&machine(folder.path(), &[("net.ipv4.tcp_wmem", "4096\t16384\t4194304\n")]));
    let finding = find(&findings, "net.ipv4.tcp_wmem");
    assert_eq!((finding.verdict, finding.is.as_str()), (Verdict::Missed, "4096 16384 4194304"));
}

#[test]
fn a_key_that_is_not_there_is_absent_and_left_out_if_the_profile_expects_that() {
    let folder = tempfile::tempdir().unwrap();
    let findings = compare_with(&machine(folder.path(), &[]));
    assert_eq!(find(&findings, "fs.nr_open").verdict, Verdict::Absent);
    assert!(findings.iter().all(|finding| finding.key != "net.netfilter.nf_conntrack_max"));
}

#[test]
fn limits_are_compared_by_their_hard_value_in_the_unit_of_the_profile() {
    let folder = tempfile::tempdir().unwrap();
    let findings = compare_with(&machine(folder.path(), &[]));
    let files = find(&findings, "nofile");
    assert_eq!(
        (files.verdict, files.is.as_str(), files.should.as_str()),
        (Verdict::Missed, "524288", "at least 1048576")
    );
    assert_eq!(files.how_to_change, "as root: ulimit -n 1048576; in a service: LimitNOFILE=1048576");
    let locked = find(&findings, "memlock");
    assert_eq!(
        (locked.verdict, locked.is.as_str(), locked.should.as_str()),
        (Verdict::Missed, "8192 KiB", "unlimited")
    );
    assert_eq!(locked.how_to_change, "as root: ulimit -l unlimited; in a service: LimitMEMLOCK=infinity");
}

#[test]
fn this_machine_can_be_compared() {
    let findings = compare();
    assert!(find(&findings, "nofile").verdict != Verdict::Absent);
    assert!(findings.iter().all(|finding| (finding.verdict == Verdict::Missed) != finding.how_to_change.is_empty()));
}
