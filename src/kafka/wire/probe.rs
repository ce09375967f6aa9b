//! Probes each bootstrap server over a separate connection, for `lagwise check`: how far the connection gets, and what
//! the broker supports.

use std::time::Instant;

use futures::future::join_all;

use super::WireInner;
use super::address::Address;
use super::handshake::{self, ConnectError};
use super::options::WireOptions;
use super::sasl;
use super::silence::{SetupProgress, SetupStep, SetupTarget};
use super::versions::ApiKey;
use crate::kafka::client_certificate::first_expiry;
use crate::model::diagnostics::preflight::kafka::{
    ApiSupport, BrokerProbe, BrokerSession, TlsSession,
};
use crate::model::kafka::fault::{BrokerFault, Fault};
use crate::model::units::untrusted_text::Printable;

/// Maximum number of bootstrap servers that are probed.
const MAX_PROBED_SERVERS: usize = 16;

impl WireInner {
    /// Connects to each bootstrap server by the deadline, and logs in.
    pub(super) async fn probe(&self, deadline: Instant) -> Vec<BrokerProbe> {
        let options = self.cluster.shared.options();
        let addresses = options.bootstrap.iter().take(MAX_PROBED_SERVERS);
        let probes = addresses.map(|address| self.probe_broker(address, &options, deadline));
        join_all(probes).await
    }

    async fn probe_broker(
        &self,
        address: &Address,
        options: &WireOptions,
        deadline: Instant,
    ) -> BrokerProbe {
        let cluster = &*self.cluster.shared;
        let progress = SetupProgress::default();
        let target = SetupTarget {
            address,
            options,
            cluster,
            progress: &progress,
        };
        let within = tokio::time::timeout_at(deadline.into(), async {
            cluster.pace.wait().await;
            let opening = self.open_session(address, options, deadline, &progress);
            target.watch(opening, drop).await
        });
        let session = within.await.unwrap_or_else(|_| {
            let silent = progress.no_answer(options);
            Err(silent.unwrap_or_else(|| ConnectError::new(Fault::NoAnswer, "no answer in time")))
        });
        let name = address.to_string();
        BrokerProbe {
            outcome: session.map_err(|error| {
                let reason = format!("{name}: {}", error.reason);
                BrokerFault {
                    address: name.as_str().into(),
                    kind: error.kind,
                    reason: Printable::message(&reason).to_string().into(),
                }
            }),
            address: name,
        }
    }

    async fn open_session(
        &self,
        address: &Address,
        options: &WireOptions,
        deadline: Instant,
        progress: &SetupProgress,
    ) -> Result<BrokerSession, ConnectError> {
        let credentials = options.login.credentials(deadline.into()).await?;
        let memory = &self.cluster.shared.memory;
        let greeting = handshake::greet(address, options, memory, deadline.into(), progress);
        let (mut exchange, versions) = greeting.await?;
        let tls = options.tls.as_ref().map(|used| TlsSession {
            is_verified: used.is_verified,
            expires: first_expiry(&exchange.peer_certificates),
        });
        progress.reach(SetupStep::Login);
        sasl::log_in(&credentials, &mut exchange, &versions).await?;
        let apis = ApiKey::OF_SWEEPS.map(|(api, name, is_needed)| ApiSupport {
            name,
            version: versions.highest_common(api).ok(),
            is_needed,
        });
        Ok(BrokerSession {
            login: credentials.describe(),
            tls,
            apis: apis.into(),
        })
    }
}
