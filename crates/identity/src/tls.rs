//! TLS for the API: who the server is, and how it asks its clients.

use crate::{Credential, GatewayCertificate, IdentityError, Verifier};
use base::Wall;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;

/// The provider of all cryptography in this program. Handed to every configuration explicitly, and made
/// the process's default by [`install_provider`] for whatever builds one without asking.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes [`provider`] the process's default. Call it first in every `main`; a second call changes nothing.
pub fn install_provider() {
    // An error means that a default is there already; configurations made here name theirs anyway.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The API server's configuration: TLS 1.2 and 1.3, `h2` and `http/1.1`. A client may present a
/// certificate; one that is presented must be good, and must prove somebody by [`Verifier::client`].
///
/// A resumed session does not show its certificate to the verifier again, and a connection may outlive
/// it: whoever accepts the connection calls [`Verifier::client`] itself with the chain and the present,
/// and again at [`crate::Proven::lifetime`]'s end.
///
/// # Errors
/// If the roots cannot be used.
pub fn server_config(
    certificate: Arc<GatewayCertificate>,
    verifier: Arc<Verifier>,
) -> Result<ServerConfig, IdentityError> {
    let refused = |why: String| IdentityError::Crypto { operation: "configure the API's TLS", why };
    let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&verifier)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| refused(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| refused(e.to_string()))?
        .with_client_cert_verifier(Arc::new(MeshClients { chains, verifier }))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client of the API that trusts the mesh's roots and, if it has one, presents a credential.
///
/// # Errors
/// If the roots or the credential cannot be used.
pub fn client_config(verifier: &Verifier, credential: Option<&Credential>) -> Result<ClientConfig, IdentityError> {
    let refused =
        |e: rustls::Error| IdentityError::Crypto { operation: "configure a client's TLS", why: e.to_string() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(refused)?
        .with_root_certificates(roots(verifier)?);
    match credential {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key_der()).map_err(refused),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn roots(verifier: &Verifier) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    for root in verifier.roots() {
        store
            .add(root.clone())
            .map_err(|e| IdentityError::Crypto { operation: "trust a root certificate", why: e.to_string() })?;
    }
    Ok(store)
}

/// Two gates in a row: webpki's for the chain as any X.509 verifier sees it, ours for who may name whom.
#[derive(Debug)]
struct MeshClients {
    chains: Arc<dyn ClientCertVerifier>,
    verifier: Arc<Verifier>,
}

impl ClientCertVerifier for MeshClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        match self.verifier.client(&chain, Wall(now.as_secs().saturating_mul(1000))) {
            Ok(_) => Ok(verified),
            Err(refusal) => {
                tracing::debug!(%refusal, "a client certificate was refused");
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
