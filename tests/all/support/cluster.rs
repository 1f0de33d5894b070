//! A Postgres server of a drill's own, which may be stopped and started again.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

use super::{eventually, free_port, run, variable};

/// A server.
pub struct Cluster {
    directory: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(user) = variable("TOLLGATE_TEST_PG_USER") {
            assert!(Command::new("chown").arg(user).arg(directory.path()).status().unwrap().success());
        }
        let mut cluster = Self { directory, port: free_port(), server: None };
        let initdb = cluster
            .tool("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(cluster.data())
            .stdout(Stdio::null())
            .status();
        assert!(initdb.unwrap().success());
        cluster.again();
        cluster
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops at once, as a machine that loses its power does.
    pub fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        kill_process(Pid::from_child(&server), Signal::QUIT).unwrap();
        server.wait().unwrap();
    }

    /// Starts with the same data, and waits until it answers.
    pub fn again(&mut self) {
        let mut postgres = self.tool("postgres");
        postgres.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        postgres
            .args(["-c", "listen_addresses=127.0.0.1", "-c"])
            .arg(format!("unix_socket_directories={}", self.directory.path().display()));
        postgres.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(postgres.spawn().unwrap());
        let url = self.url();
        eventually("Postgres answers", || run(PgConnection::connect(&url)).ok());
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// One of its programs, as the user it wants to be: it refuses root. It ends with us.
    fn tool(&self, name: &str) -> Command {
        let bin = variable("TOLLGATE_TEST_PG_BIN")
            .expect("TOLLGATE_TEST_PG_BIN: where initdb and postgres are (scripts/test-env sets it)");
        let mut command = Command::new("setpriv");
        if let Some(user) = variable("TOLLGATE_TEST_PG_USER") {
            let id = Command::new("id").args(["-g", &user]).output().unwrap();
            let group = String::from_utf8(id.stdout).unwrap();
            command.args(["--reuid", &user, "--regid", group.trim(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "QUIT"]).arg(Path::new(&bin).join(name)).current_dir(self.directory.path());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop();
        }
    }
}
