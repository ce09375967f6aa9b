//! A realm of Kerberos with its key distribution centre (KDC), on loopback and in a separate folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::artifacts::Artifacts;
use super::poll::poll_until;
use super::ports::free_port;
use super::process::Process;

/// The realm's name.
pub(crate) const REALM: &str = "LAGWISE.TEST";

/// How long the centre may take to be up.
const START: Duration = Duration::from_secs(30);

/// A realm. Dropped, its centre is killed.
pub(crate) struct Realm {
    /// Where the programs and libraries are.
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    centre: Mutex<Option<Process>>,
}

impl Realm {
    /// Makes the realm; [`Self::start`] starts its centre.
    pub(crate) fn new(folder: &Path, artifacts: &Artifacts) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let realm = Self {
            programs: artifacts.kerberos.clone(),
            folder: folder.to_owned(),
            port: free_port()?,
            centre: Mutex::default(),
        };
        let (lib, folder, port) = (realm.programs.join("lib"), folder.display(), realm.port);
        let lib = lib.display();
        std::fs::write(
            realm.config(),
            // Host names are used as given, without DNS. With TCP only, a stopped KDC is noticed at once.
            format!(
                "[libdefaults]\n\
                 default_realm = {REALM}\n\
                 dns_lookup_realm = false\n\
                 dns_lookup_kdc = false\n\
                 dns_canonicalize_hostname = false\n\
                 rdns = false\n\
                 udp_preference_limit = 1\n\
                 plugin_base_dir = {lib}/krb5/plugins\n\
                 [realms]\n\
                 {REALM} = {{\n\
                 kdc = 127.0.0.1:{port}\n\
                 }}\n"
            ),
        )?;
        std::fs::write(
            realm.folder.join("kdc.conf"),
            format!(
                "[kdcdefaults]\n\
                 kdc_listen = 127.0.0.1:{port}\n\
                 kdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\n\
                 {REALM} = {{\n\
                 database_module = files\n\
                 key_stash_file = {folder}/stash\n\
                 }}\n\
                 [dbmodules]\n\
                 db_module_dir = {lib}/krb5/plugins/kdb\n\
                 files = {{\n\
                 db_library = db2\n\
                 database_name = {folder}/principal\n\
                 }}\n"
            ),
        )?;
        realm.tool("kdb5_util", &["create", "-s", "-r", REALM, "-P", "master"])?;
        Ok(realm)
    }

    /// Starts the centre where it is not running, and waits until it listens.
    pub(crate) fn start(&self) -> Result<()> {
        let mut centre = self.centre.lock().unwrap_or_else(PoisonError::into_inner);
        let centre = match &mut *centre {
            Some(running) => running,
            none => {
                let command = self.command("krb5kdc", &["-n"]);
                none.insert(Process::start("kdc", &self.folder, &command)?)
            }
        };
        poll_until(START, "the key distribution centre to listen", || {
            centre.expect_running()?;
            std::net::TcpStream::connect(("127.0.0.1", self.port))?;
            Ok(())
        })
    }

    /// Kills the centre.
    pub(crate) fn stop(&self) {
        drop(
            self.centre
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Adds a principal with a random key.
    pub(crate) fn add(&self, principal: &str) -> Result<()> {
        self.admin(&format!("addprinc -randkey {principal}"))
    }

    /// Adds a principal with a password.
    pub(crate) fn add_with_password(&self, principal: &str, password: &str) -> Result<()> {
        self.admin(&format!("addprinc -pw {password} {principal}"))
    }

    /// Writes the principal's keys into a keytab of this name. Earlier keytabs stay valid.
    pub(crate) fn keytab(&self, principal: &str, name: &str) -> Result<PathBuf> {
        let file = self.folder.join(format!("{name}.keytab"));
        self.admin(&format!(
            "ktadd -norandkey -k {} {principal}",
            file.display()
        ))?;
        ensure!(file.exists(), "there is no key of {principal}");
        Ok(file)
    }

    /// Changes the principal's key, which invalidates its keytabs.
    pub(crate) fn change_key(&self, principal: &str) -> Result<()> {
        self.admin(&format!("cpw -randkey {principal}"))
    }

    /// Path of the `krb5.conf` for clients of the realm.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("krb5.conf")
    }

    /// Environment variables of a client of the realm, with a ticket cache in a file of this name.
    pub(crate) fn client(&self, tickets: &str) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        vec![
            ("KRB5_CONFIG", text(self.config())),
            ("KRB5CCNAME", text(self.folder.join(tickets))),
            ("LD_LIBRARY_PATH", text(self.programs.join("lib"))),
            ("SASL_PATH", text(self.programs.join("lib/sasl2"))),
            ("PATH", text(self.programs.join("bin")) + ":" + &path),
        ]
    }

    fn admin(&self, query: &str) -> Result<()> {
        self.tool("kadmin.local", &["-r", REALM, "-q", query])
    }

    fn tool(&self, name: &str, args: &[&str]) -> Result<()> {
        let output = self.command(name, args).output().context("running it")?;
        // kadmin.local prints errors, but exits with code 0.
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && !said.contains(": "),
            "{name} {args:?}: {said}"
        );
        Ok(())
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("sbin").join(name));
        command
            .args(args)
            .envs(self.client("administrator"))
            .env("KRB5_KDC_PROFILE", self.folder.join("kdc.conf"));
        command
    }
}
