//! Debian's nginx, which asks us whether a client may pass: the configuration of docs/migrate-nexus-auth.md.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use super::{free_port, loopback, neuron, within};

const PROGRAM: &str = "/usr/sbin/nginx";

/// An nginx with TLS in front of a service.
pub struct Nginx {
    pub address: SocketAddr,
    directory: tempfile::TempDir,
    child: Child,
}

impl Nginx {
    /// One that asks `auth` and passes on to `service`.
    pub fn start(auth: SocketAddr, service: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = loopback(free_port());
        std::fs::write(directory.path().join("nginx.conf"), configuration(address, auth, service)).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "stderr"]).stdin(Stdio::null());
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        let mut nginx = Self { address, directory, child };
        within(super::PATIENCE, "nginx listens", || {
            if let Some(status) = nginx.child.try_wait().unwrap() {
                panic!("nginx ended with {status}: {}", nginx.log());
            }
            std::net::TcpStream::connect(address).ok()
        });
        nginx
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx\n{}", self.log());
        }
    }
}

fn configuration(address: SocketAddr, auth: SocketAddr, service: SocketAddr) -> String {
    let (certificate, key) = (neuron::file("gateway.crt"), neuron::file("gateway.key"));
    let (certificate, key) = (certificate.display(), key.display());
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    let temporary = temporary.join("\n    ");
    format!(
        r#"daemon off;
master_process off;
pid pid;
events {{ }}
http {{
    access_log off;
    {temporary}
    upstream tollgate {{
        server {auth};
        keepalive 8;
    }}
    server {{
        listen {address} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client optional_no_ca;

        location = /auth {{
            internal;
            proxy_pass http://tollgate;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
        }}

        location / {{
            auth_request /auth;
            auth_request_set $hotkey $upstream_http_x_hotkey;
            proxy_set_header X-Hotkey $hotkey;
            proxy_set_header X-Client-Cert "";
            proxy_pass http://{service};
        }}
    }}
}}
"#
    )
}
