//! Kafka's jars: fetched once through Maven, kept in the tools folder.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Error, Unavailable};
use crate::repository;

/// Version of Apache Kafka that tests run against.
pub const VERSION: &str = "4.1.1";

/// Oldest Java that this Kafka's broker runs on.
const OLDEST_JAVA: u32 = 17;

/// What is fetched, with everything it depends on: group, artifact, version.
const ARTIFACTS: [(&str, &str, &str); 3] = [
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.kafka", "kafka-tools", VERSION),
    // Without it the broker logs nothing at all, not even why it can't start.
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
];

/// A complete set of jars and the Java that runs them.
#[derive(Clone, Debug)]
pub struct Jars {
    folder: PathBuf,
    java: PathBuf,
}

impl Jars {
    /// A command that runs `main_class` from the jars with `java_options` before it; arguments follow.
    #[must_use]
    pub fn command(&self, java_options: &[String], main_class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args(java_options).arg("-cp").arg(self.folder.join("*")).arg(main_class);
        command
    }

    /// Like [`Jars::command`], for a tool that runs a second or two: small and quick to start.
    #[must_use]
    pub fn tool(&self, main_class: &str) -> Command {
        let options = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"].map(String::from);
        self.command(&options, main_class)
    }
}

/// The jars, fetched with Maven if they aren't in the tools folder yet. Safe to call from many processes at once.
///
/// # Errors
/// [`Unavailable`] if there is no Java of version 17 or later, or the jars are missing and Maven is, too, or can't fetch them.
pub fn ensure_jars() -> Result<Jars, Error> {
    let java = find_java()?;
    let tools = repository::tools();
    let folder = tools.join(format!("kafka-{VERSION}"));
    fs::create_dir_all(&tools).map_err(Error::io("can't create", &tools))?;
    let lock_path = tools.join(format!("kafka-{VERSION}.lock"));
    let lock = File::create(&lock_path).map_err(Error::io("can't create", &lock_path))?;
    lock.lock().map_err(Error::io("can't lock", &lock_path))?;
    if !folder.is_dir() {
        fetch(&tools, &folder)?;
    }
    Ok(Jars { folder, java })
}

pub(crate) fn find_java() -> Result<PathBuf, Unavailable> {
    let java = env::var_os("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
    let install = "install it, e.g. `apt-get install openjdk-17-jre-headless`";
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .map_err(|error| Unavailable(format!("`{}` does not run ({error}); {install}", java.display())))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match java_version(&text) {
        Some(version) if version >= OLDEST_JAVA => Ok(java),
        Some(version) => Err(Unavailable(format!("Java {version} is too old for Kafka {VERSION}; {install}"))),
        None => Err(Unavailable(format!("`{} -version` said {text:?}; {install}", java.display()))),
    }
}

/// Major version in what `java -version` prints.
fn java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    let digits: String = quoted.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Fetches into a neighbour of `folder`, which gets its name only once it is complete.
fn fetch(tools: &Path, folder: &Path) -> Result<(), Error> {
    eprintln!("fetching Kafka {VERSION} (45 MB) into {}", folder.display());
    let project = tempfile::Builder::new()
        .prefix("kafka-fetch-")
        .tempdir_in(tools)
        .map_err(Error::io("can't create a folder in", tools))?;
    let pom_path = project.path().join("pom.xml");
    fs::write(&pom_path, pom()).map_err(Error::io("can't write", &pom_path))?;
    let jars = project.path().join("jars");
    let output = Command::new("mvn")
        .args([
            "--batch-mode",
            "--quiet",
            "-Dstyle.color=never",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .current_dir(project.path())
        .output()
        .map_err(|error| {
            Unavailable(format!(
                "`mvn` does not run ({error}); install it, e.g. `apt-get install maven`, or set KAFKA_BROKERS"
            ))
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(Unavailable(format!("Maven could not fetch Kafka {VERSION}: {}", said.trim())).into());
    }
    fs::rename(&jars, folder).map_err(Error::io("can't move the jars to", folder))
}

fn pom() -> String {
    let mut dependencies = String::new();
    for (group, artifact, version) in ARTIFACTS {
        // Kafka Connect, which nobody here runs, would add a web server and forty more jars.
        let _ = write!(
            dependencies,
            "    <dependency>\n      <groupId>{group}</groupId>\n      <artifactId>{artifact}</artifactId>\n      \
             <version>{version}</version>\n      <exclusions><exclusion><groupId>org.apache.kafka</groupId>\
             <artifactId>connect-runtime</artifactId></exclusion></exclusions>\n    </dependency>\n"
        );
    }
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
         <groupId>tidegate</groupId>\n  <artifactId>kafka-for-tests</artifactId>\n  <version>1</version>\n  \
         <packaging>pom</packaging>\n  <dependencies>\n{dependencies}  </dependencies>\n</project>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pom_names_every_artifact_with_its_version() {
        let pom = pom();
        for (group, artifact, version) in ARTIFACTS {
            let group_line = format!("<groupId>{group}</groupId>\n      <artifactId>{artifact}</artifactId>");
            assert!(pom.contains(&group_line), "{artifact} is missing in {pom}");
            assert!(pom.contains(&format!("<version>{version}</version>")), "{version} is missing in {pom}");
        }
        assert_eq!(pom.matches("<dependency>").count(), pom.matches("</dependency>").count());
    }

    #[test]
    fn the_major_version_is_read_from_what_java_prints() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …"), Some(17));
        assert_eq!(java_version("java version \"1.8.0_402\""), Some(1));
        assert_eq!(java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("no such thing"), None);
    }
}
