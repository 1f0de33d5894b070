//! `tollgate generate`: the program itself, its files, and what it asks.

mod pylon;
mod subtensor;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;
use tollgate::tls::neuron::NeuronKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::program;

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
/// An account that the registry of the fake Pylon lacks.
const NEURON: &str = "5FQzhS8MRMGNZfCxVJaWu4n4Q6jt53zv2hxYguM4Y5fVkcHZ";

/// A directory to work in, and what the environment says.
struct Desk {
    directory: TempDir,
    variables: Vec<(String, String)>,
}

/// How a run has ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("generate").args(arguments);
        command
    }

    fn generate(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn certs(&self, name: &str) -> PathBuf {
        self.directory.path().join("certs").join(name)
    }

    fn key(&self) -> PathBuf {
        self.certs("client.key")
    }

    fn next_key(&self) -> PathBuf {
        self.certs("client.key.next")
    }

    fn certificate(&self) -> PathBuf {
        self.certs("client.crt")
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.certs("")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everything in the output directory, byte by byte.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        self.names().into_iter().map(|name| (name.clone(), fs::read(self.certs(&name)).unwrap())).collect()
    }

    /// Writes a file of the output directory.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.certs("")).unwrap();
        fs::write(self.certs(name), contents).unwrap();
    }

    /// Both files are there, as they should be, for this hotkey and this key.
    #[track_caller]
    fn certified(&self, hotkey: &str, key: &NeuronKey) {
        assert_eq!(self.names(), ["client.crt", "client.key"]);
        assert_eq!((mode(&self.key()), mode(&self.certificate())), (0o600, 0o644));
        assert_eq!(fs::read_to_string(self.key()).unwrap(), *key.to_pem());
        let pem = fs::read(self.certificate()).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public());
        assert_eq!(certificate.subject().to_string(), format!("O={hotkey}"));
        certificate.verify_signature(None).unwrap();
        assert!(certificate.validity().is_valid());
    }

    /// What is written there first, so that a run finds both files.
    fn occupied(self) -> Self {
        self.write("client.key", key(9).to_pem().as_bytes());
        self.write("client.crt", "a certificate");
        self
    }
}

impl Ended {
    /// It ended with this code, wrote nothing on standard output, and said this.
    #[track_caller]
    fn with(self, code: i32, said: &[&str]) -> Self {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        for said in said {
            assert!(self.err.contains(said), "{said} is not in: {}", self.err);
        }
        self
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn key(of: u8) -> NeuronKey {
    NeuronKey::from_seed(&[of; 32]).unwrap()
}

#[test]
fn a_wrong_command_line_ends_with_2_and_the_usage() {
    let desk = Desk::new();
    let miner = ["--identity-name", "miner", "--netuid", "2"];
    for (arguments, said) in [
        (vec![], "-ss58-address is required"),
        (vec!["--ss58-address", " "], "-ss58-address is required"),
        (vec!["--ss58-address", "5Grwva"], "is an SS58 address of 48 characters"),
        (vec!["--ss58-address", "self"], "is an SS58 address of 48 characters"),
        (vec!["--ss58-address", ALICE], "-identity-name is required (or set NEXUS_PYLON_IDENTITY_NAME)"),
        (vec!["--ss58-address", ALICE, "--identity-name", "miner"], "NEXUS_PYLON_NETUID is required"),
        (
            vec!["--ss58-address", ALICE, "--pylon-endpoint", "ftp://x", miner[0], miner[1], "--netuid", "2"],
            "http or https",
        ),
        (vec!["--ss58-address", ALICE, "--reissue", "-force-recreate"], "say one of the two"),
        (vec!["--ss58-address", ALICE, "--publish"], "--publish goes with"),
        (vec!["--ss58-address", ALICE, "--reissue", "--publish"], "--publish needs --subtensor-url"),
        (vec!["--not-after-days", "0"], "--not-after-days"),
        (vec!["--not-after-days", "-5"], "--not-after-days"),
        (vec!["--not-after-days", "36501"], "--not-after-days"),
        (vec!["--not-after-days", "200000"], "--not-after-days"),
        (vec!["--algorithm", "2"], "--algorithm"),
        (vec!["--netuid", "-1"], "--netuid"),
        (vec!["--netuid", "65536"], "--netuid"),
        (vec!["--reissue", "--from-key", "x"], "cannot be used with"),
        (vec!["--nonsense"], "--nonsense"),
    ] {
        desk.generate(&arguments).with(2, &[said, "--help"]);
    }
    let variables = Desk::new().variable("NEXUS_PYLON_IDENTITY_NAME", "miner").variable("NEXUS_PYLON_NETUID", "two");
    variables.generate(&["--ss58-address", ALICE]).with(2, &["NEXUS_PYLON_NETUID \"two\" is not"]);
    assert!(desk.names().is_empty());
}

#[test]
fn what_is_there_stays_as_it_is() {
    let desk = Desk::new().variable("NEXUS_PYLON_NETUID", "2").occupied();
    set_mode(&desk.key(), 0o640);
    let before = desk.contents();
    // Nobody is asked: nobody listens there.
    let arguments = ["--ss58-address", ALICE, "--identity-name", "miner", "--pylon-endpoint", "http://127.0.0.1:1"];
    let ended = desk.generate(&arguments).with(0, &["nothing done"]);
    assert_eq!(ended.err.lines().filter(|line| line.contains("nothing done")).count(), 1);
    assert_eq!((desk.contents(), mode(&desk.key())), (before.clone(), 0o640));
    set_mode(&desk.key(), 0o644);
    desk.generate(&arguments).with(0, &["readable for all"]);
    assert_eq!((desk.contents(), mode(&desk.key())), (before, 0o600));
}

#[test]
fn one_file_alone_is_never_replaced_in_silence() {
    let arguments = ["--ss58-address", ALICE, "--identity-name", "miner", "--netuid", "2"];
    let arguments = [arguments.as_slice(), &["--pylon-endpoint", "http://127.0.0.1:1"]].concat();
    let desk = Desk::new();
    desk.write("client.key", key(9).to_pem().as_bytes());
    desk.generate(&arguments).with(1, &["Failed to generate a certificate", "--reissue", "-force-recreate"]);
    assert_eq!(desk.names(), ["client.key"]);
    desk.generate(&["--ss58-address", ALICE, "--reissue"]).with(0, &["the same key", "not compared"]);
    desk.certified(ALICE, &key(9));

    fs::remove_file(desk.key()).unwrap();
    desk.generate(&arguments).with(1, &["--from-key", "-force-recreate"]);
    desk.generate(&["--ss58-address", ALICE, "--reissue"]).with(1, &["client.key"]);
    assert_eq!(desk.names(), ["client.crt"]);
}

#[test]
fn a_certificate_is_made_for_a_key_that_there_is() {
    let desk = Desk::new();
    let from = desk.directory.path().join("shield.pem");
    fs::write(&from, key(7).to_pem().as_bytes()).unwrap();
    let arguments = ["--ss58-address", ALICE, "--from-key", "shield.pem", "--not-after-days", "1"];
    desk.generate(&arguments).with(0, &["not compared with the chain"]);
    desk.certified(ALICE, &key(7));
    assert_eq!(mode(&desk.certs("")), 0o755);
    // Again: both are there.
    let before = desk.contents();
    desk.generate(&arguments).with(0, &["nothing done"]);
    assert_eq!(desk.contents(), before);
    // Renewed: the same key, another certificate.
    desk.generate(&["--ss58-address", ALICE, "--reissue"]).with(0, &[]);
    assert_ne!(desk.contents(), before);
    desk.certified(ALICE, &key(7));
    // Another key takes the place of this one only if that is said.
    fs::write(&from, key(8).to_pem().as_bytes()).unwrap();
    fs::remove_file(desk.certificate()).unwrap();
    desk.generate(&arguments).with(1, &["-force-recreate"]);
    desk.generate(&[arguments.as_slice(), &["--force-recreate"]].concat()).with(0, &[]);
    desk.certified(ALICE, &key(8));
    fs::write(&from, "no key").unwrap();
    desk.generate(&[arguments.as_slice(), &["--force-recreate"]].concat()).with(1, &["shield.pem", "no private key"]);
    desk.certified(ALICE, &key(8));
}
