//! Admits requests to a listener that authenticates and authorizes its callers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::api_error::ApiFailure;
use super::auth::{AccessControl, CallerIdentity, RequestAuth, Unauthenticated};
use super::connection_peer::ConnectionPeer;
use super::connections::{ConnectionSlot, PeerRank};
use super::request::check_body_size;
use crate::authentication::ReviewError;
use crate::authentication::access::{Action, Caller};

/// Maximum concurrent requests on connections of the front proxy and of other replicas. Only those that wait for
/// Kafka, or for an access review by the API server, take longer than a moment.
const MAX_CONCURRENT_TRUSTED: usize = 1024;

/// The same for callers with valid credentials. Each rank has separate permits, so that it leaves some for others.
const MAX_CONCURRENT_KNOWN: usize = 768;

/// The same for callers that have not presented valid credentials.
const MAX_CONCURRENT_UNKNOWN: usize = 256;

/// Authenticates and authorizes requests, within limits.
#[derive(Debug)]
pub(super) struct RequestAdmission {
    access: AccessControl,
    trusted_permits: Semaphore,
    known_permits: Semaphore,
    unknown_permits: Semaphore,
}

/// A request whose caller is known.
#[derive(Debug)]
pub(super) struct AuthenticatedRequest<'a> {
    pub(super) identity: CallerIdentity,
    connection: Option<&'a ConnectionSlot>,
    _permit: SemaphorePermit<'a>,
}

impl AuthenticatedRequest<'_> {
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.identity.caller
    }

    /// Records that the caller is another replica.
    pub(super) fn trust(&self) {
        if let Some(connection) = self.connection {
            connection.raise_rank(PeerRank::Trusted);
        }
    }

    fn peer(&self) -> Option<IpAddr> {
        self.connection.map(ConnectionSlot::peer)
    }
}

impl RequestAdmission {
    pub(super) fn new(auth: RequestAuth) -> Self {
        Self {
            access: AccessControl::new(auth),
            trusted_permits: Semaphore::new(MAX_CONCURRENT_TRUSTED),
            known_permits: Semaphore::new(MAX_CONCURRENT_KNOWN),
            unknown_permits: Semaphore::new(MAX_CONCURRENT_UNKNOWN),
        }
    }

    /// Whether everything is allowed without authentication.
    pub(super) fn is_open(&self) -> bool {
        self.access.is_open()
    }

    /// Whether the caller is another replica.
    ///
    /// # Errors
    /// The review of this daemon's own identity failed.
    pub(super) async fn is_peer(&self, caller: &Caller) -> Result<bool, ReviewError> {
        self.access.is_peer(caller).await
    }

    /// Authenticates the caller of a request. The listener has put the connection and the client certificate
    /// into the request's extensions.
    pub(super) async fn authenticate<'a>(
        &'a self,
        parts: &'a Parts,
    ) -> Result<AuthenticatedRequest<'a>, ApiFailure> {
        let peer = parts.extensions.get::<Arc<ConnectionPeer>>();
        let presented = peer.and_then(|peer| peer.presented.as_ref());
        let connection = peer.map(|peer| &*peer.slot);
        let headers = &parts.headers;
        let by_certificate = self.access.identify_by_certificate(presented, headers);
        let rank = match &by_certificate {
            Some(Ok(identity)) => identity.rank,
            _ => connection.map_or(PeerRank::Unknown, ConnectionSlot::rank),
        };
        let permits = match rank {
            PeerRank::Unknown => &self.unknown_permits,
            PeerRank::Known => &self.known_permits,
            PeerRank::Trusted => &self.trusted_permits,
        };
        let Ok(permit) = permits.try_acquire() else {
            return Err(ApiFailure::too_many("too many requests in progress"));
        };
        check_body_size(headers)?;
        let peer = connection.map(ConnectionSlot::peer);
        let identity = self
            .access
            .authenticate(by_certificate, headers, peer, rank);
        let identity = identity.await.map_err(unauthenticated)?;
        if let Some(connection) = connection {
            connection.raise_rank(identity.rank);
        }
        Ok(AuthenticatedRequest {
            identity,
            connection,
            _permit: permit,
        })
    }

    /// Fails unless the caller may perform the action.
    pub(super) async fn authorize(
        &self,
        request: &AuthenticatedRequest<'_>,
        action: &Action,
    ) -> Result<(), ApiFailure> {
        let (identity, peer) = (&request.identity, request.peer());
        let user = &identity.caller.user;
        match self.access.authorize(identity, action, peer).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ApiFailure::forbidden(format!(
                "user {user:?} may not {action}: grant it with a Role or ClusterRole and a binding"
            ))),
            Err(error) if error.is_rate_limit() => Err(ApiFailure::too_many(error.to_string())),
            Err(error) => Err(ApiFailure::unavailable(format!(
                "cannot check whether user {user:?} may {action}: {error}"
            ))),
        }
    }
}

fn unauthenticated(reason: Unauthenticated) -> ApiFailure {
    let text = reason.to_string();
    match reason {
        Unauthenticated::Unreviewed(error) if error.is_rate_limit() => {
            ApiFailure::too_many(error.to_string())
        }
        _ if reason.is_temporary() => ApiFailure::unavailable(text),
        _ => ApiFailure::unauthorized(text),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::http::{Request, header};
    use tokio::sync::watch;

    use super::*;
    use crate::serve::auth::testing::FakeAuthenticator;

    fn admission() -> RequestAdmission {
        let server = Arc::new(FakeAuthenticator::default());
        for token in ["good", "renewed"] {
            server.token(token, "tom");
        }
        let (_, trust) = watch::channel(None);
        RequestAdmission::new(RequestAuth::Kubernetes {
            trust,
            reviewer: server,
        })
    }

    /// A request with a token on a connection of this rank.
    fn request(rank: PeerRank, token: &str) -> Parts {
        let slot = ConnectionSlot::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        slot.raise_rank(rank);
        let request = Request::get("/")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .extension(Arc::new(ConnectionPeer::new(Arc::new(slot), None)));
        request.body(()).unwrap().into_parts().0
    }

    /// Whether a trusted peer is admitted while as many requests of `rank` as possible are in progress.
    async fn leaves_room_for_trusted(rank: PeerRank) -> bool {
        let admission = admission();
        let (many, trusted) = (request(rank, "good"), request(PeerRank::Trusted, "good"));
        let mut held = Vec::new();
        while let Ok(admitted) = admission.authenticate(&many).await {
            held.push(admitted);
        }
        admission.authenticate(&trusted).await.is_ok()
    }

    #[tokio::test]
    async fn requests_with_valid_credentials_leave_room_for_the_front_proxy() {
        assert!(leaves_room_for_trusted(PeerRank::Known).await);
    }

    #[tokio::test]
    async fn requests_on_connections_that_become_known_leave_room_for_the_front_proxy() {
        assert!(leaves_room_for_trusted(PeerRank::Unknown).await);
    }

    /// Whether a token that is new is accepted on a connection of `rank` after others of the same address sent many
    /// invalid ones.
    async fn accepts_new_token(rank: PeerRank) -> bool {
        let admission = admission();
        for n in 0..1_000 {
            let flood = request(PeerRank::Unknown, &format!("t{n}"));
            assert!(admission.authenticate(&flood).await.is_err());
        }
        let renewed = request(rank, "renewed");
        admission.authenticate(&renewed).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_counts_on_a_connection_of_a_known_peer() {
        assert!(accepts_new_token(PeerRank::Known).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_counts_on_a_connection_of_a_replica() {
        assert!(accepts_new_token(PeerRank::Trusted).await);
        assert!(!accepts_new_token(PeerRank::Unknown).await);
    }
}
