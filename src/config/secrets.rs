//! References in values, for secrets: `${env:NAME}` and `${file:PATH}`. `$${` is a literal `${`.

use std::env::VarError;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::model::units::file_path::{ShownPath, looks_like_path};

/// Resolves references and checks files: the environment of the process, or a fake one in tests.
pub trait Environment {
    /// The environment variable `name`.
    ///
    /// # Errors
    /// It is not set, or is not Unicode.
    fn variable(&self, name: &str) -> Result<String, VarError>;

    /// The whole text of the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is not text.
    fn read_file(&self, path: &Path) -> io::Result<String>;

    /// Whether the file at `path` can be opened for reading.
    ///
    /// # Errors
    /// Why it cannot.
    fn check_file(&self, path: &Path) -> io::Result<()>;

    /// Whether every user of the machine may read the file at `path`. False if that cannot be found out.
    fn is_open_to_all(&self, path: &Path) -> bool;
}

/// The process's own environment variables and files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

/// Maximum size of a file with a secret, so that a wrong path (a device, a log) does not fill the memory.
const MAX_SECRET_BYTES: u64 = 1024 * 1024;

impl Environment for SystemEnvironment {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        std::env::var(name)
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(MAX_SECRET_BYTES + 1)
            .read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_SECRET_BYTES) {
            return Err(io::Error::other(format!(
                "it is larger than {MAX_SECRET_BYTES} bytes"
            )));
        }
        Ok(text)
    }

    fn check_file(&self, path: &Path) -> io::Result<()> {
        // Opening a directory succeeds, reading from it does not.
        match std::fs::File::open(path)?.metadata()?.is_dir() {
            true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            false => Ok(()),
        }
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        const READ_BY_OTHERS: u32 = 0o004;
        // Kubernetes makes the files of volumes for Secrets and tokens readable for all users of the pod. They cannot
        // be reached from outside the pod. They are symbolic links into a folder `..data`.
        let is_of_volume = path.parent().is_some_and(|at| at.join("..data").exists());
        let mode = std::fs::metadata(path).map(|found| found.permissions().mode());
        !is_of_volume && mode.is_ok_and(|mode| mode & READ_BY_OTHERS != 0)
    }
}

/// A text with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Whether it has a replaced reference, so that it must not be shown.
    pub(super) referred: bool,
}

/// A reference that cannot be resolved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadReference {
    /// As written; contains no secret.
    pub(super) reference: String,
    pub(super) problem: String,
    pub(super) allowed: String,
}

const SYNTAX: &str = "${env:NAME}, ${file:PATH}, or $${ for the characters ${ themselves";

/// Whether `text` has a reference.
pub(super) fn holds_reference(text: &str) -> bool {
    text.contains("${env:") || text.contains("${file:")
}

/// Whether `text` has a reference to a file, which may change.
pub(super) fn refers_to_file(text: &str) -> bool {
    text.contains("${file:")
}

/// Replaces all references in `text`. References in the replaced values are not resolved.
///
/// # Errors
/// All references that cannot be resolved.
pub(super) fn expand(
    text: &str,
    environment: &dyn Environment,
) -> Result<Expanded, Vec<BadReference>> {
    let mut expanded = Expanded {
        text: String::new(),
        referred: false,
    };
    let mut bad = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from_here) = rest.split_at(start);
        if let Some(literal) = before.strip_suffix('$') {
            expanded.text.push_str(literal);
            expanded.text.push_str("${");
            rest = &from_here[2..];
            continue;
        }
        expanded.text.push_str(before);
        let Some(end) = from_here.find('}') else {
            bad.push(BadReference {
                // Do not show what follows an unclosed brace: it may be the secret itself.
                reference: "${".into(),
                problem: "a reference without its closing }".into(),
                allowed: SYNTAX.into(),
            });
            rest = "";
            break;
        };
        let (reference, after) = from_here.split_at(end + 1);
        let inside = &reference[2..end];
        match resolve(inside, environment) {
            Ok(value) => expanded.text.push_str(&value),
            Err((problem, allowed)) => {
                // Only a reference of a known form is safe to show, and of a file only what looks like a path.
                let known = match file_path(inside) {
                    Some(path) if looks_like_path(path) => reference,
                    Some(_) => "${file:...}",
                    None if variable_name(inside).is_some() => reference,
                    None => "${...}",
                };
                bad.push(BadReference {
                    reference: known.into(),
                    problem,
                    allowed,
                });
            }
        }
        expanded.referred = true;
        rest = after;
    }
    expanded.text.push_str(rest);
    if bad.is_empty() {
        Ok(expanded)
    } else {
        Err(bad)
    }
}

/// The paths of the files that `text` refers to.
pub(super) fn referred_files(text: &str) -> Vec<&str> {
    let mut files = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from_here) = rest.split_at(start);
        let end = match before.ends_with('$') {
            true => 1,
            false => from_here.find('}').unwrap_or(1),
        };
        let (reference, after) = from_here.split_at(end.saturating_add(1));
        let inside = reference
            .strip_prefix("${")
            .and_then(|inside| inside.strip_suffix('}'));
        files.extend(inside.and_then(file_path));
        rest = after;
    }
    files
}

/// The name in `env:NAME`.
fn variable_name(inside: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    inside
        .strip_prefix("env:")
        .filter(|name| !name.is_empty() && name.chars().all(plain))
}

/// The path in `file:PATH`. `None` if it contains `${`: then an unclosed reference precedes another one.
fn file_path(inside: &str) -> Option<&str> {
    inside
        .strip_prefix("file:")
        .filter(|path| !path.is_empty() && !path.contains("${") && !path.contains(char::is_control))
}

/// Resolves `env:NAME` or `file:PATH`. The error is the problem and what is allowed instead.
fn resolve(inside: &str, environment: &dyn Environment) -> Result<String, (String, String)> {
    if let Some(name) = variable_name(inside) {
        let (problem, allowed) = match environment.variable(name) {
            Ok(value) if !value.is_empty() => return Ok(value),
            Ok(_) => ("is empty", "a variable with a value"),
            Err(VarError::NotPresent) => {
                ("is not set", "a variable that is set before lagwise starts")
            }
            Err(VarError::NotUnicode(_)) => ("is not Unicode", "a text in UTF-8"),
        };
        return Err((
            format!("the environment variable {name} {problem}"),
            allowed.into(),
        ));
    }
    let Some(path) = file_path(inside) else {
        return Err(("not a reference".into(), SYNTAX.into()));
    };
    let text = environment.read_file(Path::new(path)).map_err(|error| {
        (
            format!("the file {} cannot be read: {error}", ShownPath(path)),
            "a text file that lagwise may read, such as a mounted Secret".to_owned(),
        )
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err((
            format!("the file {} is empty", ShownPath(path)),
            "a file with the value".into(),
        )),
        value => Ok(value.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// Variables and files of a test.
    #[derive(Default)]
    pub(in crate::config) struct Pretended {
        pub(in crate::config) variables: BTreeMap<&'static str, &'static str>,
        pub(in crate::config) files: BTreeMap<PathBuf, &'static str>,
    }

    impl Environment for Pretended {
        fn variable(&self, name: &str) -> Result<String, VarError> {
            self.variables
                .get(name)
                .map(|v| (*v).to_owned())
                .ok_or(VarError::NotPresent)
        }

        fn read_file(&self, path: &Path) -> io::Result<String> {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
            self.files
                .get(path)
                .map(|text| (*text).to_owned())
                .ok_or_else(missing)
        }

        fn check_file(&self, path: &Path) -> io::Result<()> {
            self.read_file(path).map(drop)
        }

        fn is_open_to_all(&self, path: &Path) -> bool {
            path.starts_with("/open")
        }
    }

    fn environment() -> Pretended {
        Pretended {
            variables: [
                ("USER_NAME", "shop"),
                ("EMPTY", ""),
                ("NESTED", "${env:USER_NAME}"),
            ]
            .into(),
            files: [
                ("/s/password", "hunter2\n"),
                ("/s/dos", "hunter2\r\n"),
                ("/s/pem", "-----BEGIN\nx\n-----END\n"),
                ("/s/none", "\n"),
            ]
            .map(|(path, text)| (PathBuf::from(path), text))
            .into(),
        }
    }

    #[test]
    fn replaces_references_only() {
        for (text, expected, referred) in [
            ("plain", "plain", false),
            ("$ConnectionString", "$ConnectionString", false),
            ("cost: 5$", "cost: 5$", false),
            ("{}$}", "{}$}", false),
            ("$${env:USER_NAME}", "${env:USER_NAME}", false),
            ("a$${b", "a${b", false),
            ("${env:USER_NAME}", "shop", true),
            (
                "x-${env:USER_NAME}-${file:/s/password}!",
                "x-shop-hunter2!",
                true,
            ),
            ("${file:/s/dos}", "hunter2", true),
            ("${file:/s/pem}", "-----BEGIN\nx\n-----END", true),
            ("${env:NESTED}", "${env:USER_NAME}", true),
        ] {
            let expanded = expand(text, &environment()).unwrap();
            assert_eq!(
                (expanded.text.as_str(), expanded.referred),
                (expected, referred),
                "{text}"
            );
        }
    }

    #[test]
    fn finds_the_files_of_references() {
        for (text, files) in [
            ("${file:/a}", &["/a"][..]),
            ("x${file:/a}y${env:B}${file:/c}", &["/a", "/c"]),
            ("$${file:/a}", &[]),
            ("$${file:/a}${file:/b}", &["/b"]),
            ("${file:/a", &[]),
            ("${}$", &[]),
            ("${", &[]),
        ] {
            assert_eq!(referred_files(text), files, "{text}");
        }
    }

    #[test]
    fn reports_files_that_all_users_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "s").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            SystemEnvironment.is_open_to_all(&file)
        };
        assert!(mode(0o644) && mode(0o604));
        assert!(!mode(0o640) && !mode(0o400));
        assert!(!SystemEnvironment.is_open_to_all(&folder.path().join("none")));
        // As Kubernetes mounts a Secret.
        std::fs::create_dir(folder.path().join("..data")).unwrap();
        assert!(!mode(0o644));
    }

    #[test]
    fn reports_every_unresolved_reference() {
        let problems = |text: &str| -> Vec<String> {
            let bad = expand(text, &environment()).unwrap_err();
            bad.into_iter()
                .map(|bad| format!("{}: {}", bad.reference, bad.problem))
                .collect()
        };
        assert_eq!(
            problems("${env:NO}${file:/no}${env:EMPTY}${file:/s/none}"),
            [
                "${env:NO}: the environment variable NO is not set",
                "${file:/no}: the file /no cannot be read: no such file",
                "${env:EMPTY}: the environment variable EMPTY is empty",
                "${file:/s/none}: the file /s/none is empty",
            ]
        );
        for secret in [
            "hunter2",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJsYWcifQ.c2lnbmF0dXJl",
        ] {
            assert_eq!(
                problems(&format!("${{file:{secret}}}")),
                [
                    "${file:...}: the file (a value that does not look like a path) cannot be read: no such file"
                ]
            );
        }
        assert_eq!(problems("hunter2${hunter2}"), ["${...}: not a reference"]);
        for open in [
            "${env:A:hunter2${env:B}",
            "${file:hunter2${env:B}",
            "${env:}",
            "${file:}",
            "${}",
        ] {
            assert_eq!(problems(open), ["${...}: not a reference"], "{open}");
        }
        assert_eq!(
            problems("${hunter2"),
            ["${: a reference without its closing }"]
        );
    }

    #[test]
    fn reads_regular_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "s\n").unwrap();
        assert_eq!(SystemEnvironment.read_file(&file).unwrap(), "s\n");
        assert!(SystemEnvironment.check_file(&file).is_ok());
        assert!(SystemEnvironment.check_file(folder.path()).is_err());
        assert!(
            SystemEnvironment
                .read_file(&folder.path().join("none"))
                .is_err()
        );
        std::fs::write(&file, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(SystemEnvironment.read_file(&file).is_err());
    }
}
