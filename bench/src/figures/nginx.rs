//! nginx as a reverse proxy, the rival of the proxy's figures: one worker, kept-alive connections on both sides, no log.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use xtask::kafka::free_ports;
use xtask::provision;

use super::error::FigureError;
use super::process::Server;

/// An nginx in front of a backend. Its files go with it.
pub(super) struct Nginx {
    server: Server,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it on the CPU that servers get; `backend` is host and port.
    pub(super) fn start(backend: &str) -> Result<Self, FigureError> {
        let program = provision::nginx()
            .ok_or_else(|| FigureError::Invalid("nginx is missing: apt-get install nginx-light".to_owned()))?;
        let folder = tempfile::tempdir().map_err(FigureError::system("making a folder for nginx"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)?));
        let root = folder.path().display().to_string();
        let path = folder.path().join("nginx.conf");
        fs::write(&path, configuration(&root, address, backend))
            .map_err(FigureError::system("writing nginx's configuration"))?;
        let arguments = ["-p", &root, "-e", "stderr", "-c", &path.display().to_string()].map(str::to_owned);
        let server = Server::start_listening(&program, &arguments, address)?;
        Ok(Self { server, _folder: folder })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}

/// One process that is worker and master at once, so that its CPU time is that of the proxy.
fn configuration(root: &str, address: SocketAddr, backend: &str) -> String {
    format!(
        "daemon off;
master_process off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    upstream backend {{
        server {backend};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} backlog=1024;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header connection \"\";
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_keeps_connections_on_both_sides_and_writes_only_into_its_folder() {
        let text = configuration("/t", "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2");
        assert!(text.contains("listen 127.0.0.1:1 ") && text.contains("server 127.0.0.1:2;"));
        assert!(text.contains("keepalive 128;") && text.contains("access_log off;"));
        let places = ["pid ", "_temp_path "]
            .map(|name| text.matches(name).count() == text.matches(&format!("{name}/t/")).count());
        assert_eq!(places, [true; 2], "{text}");
    }
}
