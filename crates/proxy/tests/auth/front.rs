//! The smallest front there can be: greet, authenticate, log in to the server, copy bytes. Also the drivers' side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgteal_proxy::auth::{
    AuthQuery, ClientLogin, Credentials, Greeting, ServiceLogin, Target, greet, log_in,
};
use pgteal_proxy::config::{AuthConfig, AuthMethod, ServerConfig, TlsConfig};
use pgteal_proxy::route::Side;
use pgteal_proxy::stream::Stream;
use pgteal_proxy::tls::ClientTls;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{
    ParameterStatus, TransactionStatus, put_backend_key_data, put_ready_for_query,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UnixListener};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::servers::{Certs, Leg, PASSWORD};

const LIMIT: Duration = Duration::from_secs(10);

/// A running front. Its listeners end with it.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    ca_der: Vec<u8>,
}

impl Drop for Front {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(crate) fn target(server: &ServerConfig) -> Arc<Target> {
    Arc::new(Target::new(server, 100_000).unwrap())
}

/// The proxy's lookup as the service role `pgteal`.
pub(crate) fn lookup(server: &ServerConfig, cache_ms: u64) -> Arc<AuthQuery> {
    let config = AuthConfig { cache_ms, ..AuthConfig::default() };
    Arc::new(AuthQuery::new(&config, service(&config, target(server)), LIMIT))
}

/// The service role's login there.
pub(crate) fn service(config: &AuthConfig, server: Arc<Target>) -> Arc<ServiceLogin> {
    Arc::new(ServiceLogin::new(&config.service(Side::Blue), Credentials::password(PASSWORD), server))
}

/// The next client, up to its startup packet, where TLS is a must.
pub(crate) async fn greeted(listener: &TcpListener, tls: &ClientTls) -> Stream {
    let stream = Stream::Tcp(listener.accept().await.unwrap().0);
    match greet(stream, Some(tls), true).await.unwrap() {
        Greeting::Session { stream, .. } => stream,
        other => panic!("no session: {other:?}"),
    }
}

struct Session {
    login: ClientLogin<Arc<AuthQuery>>,
    tls: ClientTls,
    target: Arc<Target>,
}

impl Front {
    /// A front with a certificate of its own, before `server`.
    pub(crate) async fn start(method: AuthMethod, server: &ServerConfig, certs: &Certs) -> Self {
        Self::with_lookup(method, server, certs, lookup(server, 60_000)).await
    }

    pub(crate) async fn with_lookup(
        method: AuthMethod,
        server: &ServerConfig,
        certs: &Certs,
        lookup: Arc<AuthQuery>,
    ) -> Self {
        let tls = TlsConfig {
            cert: certs.file("server.crt"),
            key: certs.file("server.key"),
            required: false,
            ..TlsConfig::default()
        };
        let session = Arc::new(Session {
            login: ClientLogin::new(method, false, [7; 32], lookup),
            tls: ClientTls::load(&tls).unwrap(),
            target: target(server),
        });
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let unix = UnixListener::bind(dir.path().join(format!(".s.PGSQL.{port}"))).unwrap();
        let other = Arc::clone(&session);
        let tasks = vec![
            tokio::spawn(async move {
                loop {
                    let stream = Stream::Tcp(tcp.accept().await.unwrap().0);
                    tokio::spawn(serve(Arc::clone(&session), stream));
                }
            }),
            tokio::spawn(async move {
                loop {
                    let stream = Stream::Unix(unix.accept().await.unwrap().0);
                    tokio::spawn(serve(Arc::clone(&other), stream));
                }
            }),
        ];
        Self { port, dir, tasks, ca_der: certs.ca_der.clone() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Logs in with a driver over one of the three ways. Over TLS channel binding is a must when `bound`.
    pub(crate) async fn connect(
        &self,
        leg: Leg,
        bound: bool,
        user: &str,
        password: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.port(self.port).user(user).password(password).dbname("postgres").application_name("matrix");
        match leg {
            Leg::Unix => config.host_path(self.dir.path()),
            Leg::Plain | Leg::Tls => config.host("localhost").hostaddr([127, 0, 0, 1].into()),
        };
        if leg != Leg::Tls {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            return Ok(client);
        }
        config.ssl_mode(SslMode::Require);
        config.channel_binding(if bound { ChannelBinding::Require } else { ChannelBinding::Prefer });
        let (client, connection) =
            config.connect(MakeRustlsConnect::new(driver_config(&self.ca_der))).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

pub(crate) fn driver_config(ca_der: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_der.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn serve(session: Arc<Session>, stream: Stream) {
    let Ok(Greeting::Session { mut stream, startup }) = greet(stream, Some(&session.tls), false).await else {
        return;
    };
    let user = startup.user().unwrap_or_default().to_vec();
    let Ok(credentials) = session.login.run(&mut stream, &user).await else {
        return;
    };
    let mut out = BytesMut::new();
    let mut upstream = match log_in(&session.target, &startup, &credentials, LIMIT).await {
        Ok(upstream) => upstream,
        Err(error) => {
            stream.write_all(&error.client_bytes(&user)).await.unwrap();
            let _ = stream.flush().await;
            return;
        }
    };
    Authentication::Ok.encode(&mut out);
    for (name, value) in &upstream.parameters {
        ParameterStatus { name, value }.encode(&mut out);
    }
    if let Some(key) = &upstream.cancel_key {
        put_backend_key_data(&mut out, key);
    }
    put_ready_for_query(&mut out, TransactionStatus::Idle);
    out.extend_from_slice(&upstream.leftover);
    stream.write_all(&out).await.unwrap();
    stream.flush().await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream.stream).await;
}
