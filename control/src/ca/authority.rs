//! The root and what it signs.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use weft_types::{
    ClusterId, NodeId, Timestamp,
    node::{Role, TlsInfo},
};
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

use super::organisational_unit;

/// How long a root is valid.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Certificates begin this long before they are made, for nodes whose clocks lag.
pub const BACKDATE: Duration = Duration::from_secs(3600);

/// Something that could not be signed or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate signing request is malformed, or its own signature is wrong.
    #[error("the certificate signing request cannot be used")]
    Request(#[source] rcgen::Error),
    /// The authority's own certificate or key is malformed.
    #[error("the cluster's certificate authority cannot be used: {0}")]
    Authority(String),
    /// Signing failed.
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
}

/// From when to when a certificate is valid: an hour before `now`, and for `duration` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The moment of signing.
    pub now: Timestamp,
    /// How long from then.
    pub duration: Duration,
}

/// What a node certificate says of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTitle {
    /// CN.
    pub node: NodeId,
    /// O.
    pub cluster: ClusterId,
    /// OU.
    pub role: Role,
}

/// The root certificate and its key.
pub struct Authority {
    certificate: String,
    key: String,
    /// Goes with every certificate signed, for those who know only the old root.
    cross: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

fn moment(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// What every root says of itself.
fn root_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("swarm-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Validity {
        now,
        duration: ROOT_VALIDITY,
    }
    .put_into(&mut params);
    params
}

impl Validity {
    fn put_into(self, params: &mut CertificateParams) {
        params.not_before = moment(self.now) - BACKDATE;
        params.not_after = moment(self.now) + self.duration;
    }
}

impl Authority {
    /// A new root.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let certificate = root_params(now).self_signed(&key).map_err(CaError::Sign)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            cross: String::new(),
        })
    }

    /// The root whose certificate and key the store holds.
    #[must_use]
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            cross: String::new(),
        }
    }

    /// The same authority, whose certificates come with `cross`, its own key under an older root's
    /// signature.
    #[must_use]
    pub fn crossed(mut self, cross: &str) -> Self {
        cross.clone_into(&mut self.cross);
        self
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CaError> {
        let broken = |error: rcgen::Error| CaError::Authority(error.to_string());
        let key = KeyPair::from_pem(&self.key).map_err(broken)?;
        Issuer::from_ca_cert_pem(&self.certificate, key).map_err(broken)
    }

    /// The key of `newer` under this root's signature: who trusts this root then trusts what the
    /// newer one signs.
    ///
    /// # Errors
    /// When either authority is malformed.
    pub fn cross_sign(&self, newer: &Self, now: Timestamp) -> Result<String, CaError> {
        let key =
            KeyPair::from_pem(&newer.key).map_err(|error| CaError::Authority(error.to_string()))?;
        let certificate = root_params(now)
            .signed_by(&key, &self.issuer()?)
            .map_err(CaError::Sign)?;
        Ok(certificate.pem())
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The root's private key, PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The authority as Docker's API shows it.
    ///
    /// # Errors
    /// When its certificate is malformed.
    pub fn tls_info(&self) -> Result<TlsInfo, CaError> {
        let broken = |error: String| CaError::Authority(error);
        let (_, pem) = parse_x509_pem(self.certificate.as_bytes())
            .map_err(|error| broken(error.to_string()))?;
        let (_, root) =
            parse_x509_certificate(&pem.contents).map_err(|error| broken(error.to_string()))?;
        Ok(TlsInfo {
            trust_root: self.certificate.clone(),
            cert_issuer_subject: STANDARD.encode(root.subject().as_raw()),
            cert_issuer_public_key: STANDARD.encode(root.public_key().raw),
        })
    }

    /// A certificate for the key in the signing request `csr` (PEM), saying `title`; a chain, PEM.
    ///
    /// # Errors
    /// When the request or the authority is malformed.
    pub fn sign(&self, csr: &str, title: NodeTitle, validity: Validity) -> Result<String, CaError> {
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(CaError::Request)?;
        let unit = organisational_unit(title.role);
        let mut params = CertificateParams::default();
        params.distinguished_name = name(title.node.as_str());
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, unit);
        params
            .distinguished_name
            .push(DnType::OrganizationName, title.cluster.as_str());
        let mut names = vec![unit, title.node.as_str()];
        if title.role == Role::Manager {
            names.push("swarm-ca");
        }
        for name in names {
            let name = name.try_into().map_err(CaError::Sign)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        validity.put_into(&mut params);
        let certificate = params
            .signed_by(&request.public_key, &self.issuer()?)
            .map_err(CaError::Sign)?;
        Ok(certificate.pem() + &self.cross)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_proto::{
        dial::new_key,
        identity::{Credentials, Identity},
    };

    use super::*;
    use crate::ca::Caller;

    const NOW: Timestamp = Timestamp(1_795_219_200_000_000_000);
    const VALIDITY: Validity = Validity {
        now: NOW,
        duration: Duration::from_secs(90 * 24 * 3600),
    };

    #[test]
    fn a_certificate_says_what_the_authority_decided() {
        let authority = Authority::generate(NOW).unwrap();
        for role in [Role::Worker, Role::Manager] {
            let title = NodeTitle {
                node: NodeId::numbered(1),
                cluster: ClusterId::numbered(2),
                role,
            };
            let (key, csr) = new_key().unwrap();
            let certificate = authority.sign(&csr, title, VALIDITY).unwrap();
            let (_, pem) = parse_x509_pem(certificate.as_bytes()).unwrap();
            let caller = Caller::parse(&pem.contents).unwrap();
            assert_eq!(
                (caller.node, caller.cluster, caller.role),
                (title.node, title.cluster, role)
            );
            let identity = Identity {
                node: title.node,
                cluster: title.cluster,
                role,
                certificate,
                key,
                trust_root: authority.certificate().to_owned(),
            };
            Credentials::new(identity).unwrap();
        }
    }

    #[test]
    fn certificates_begin_an_hour_ago_and_say_the_names_that_peers_check() {
        let authority = Authority::generate(NOW).unwrap();
        let seconds = NOW.0 / 1_000_000_000;
        let read = |text: &str| {
            let (_, pem) = parse_x509_pem(text.as_bytes()).unwrap();
            let certificate = pem.parse_x509().unwrap();
            let names = certificate.subject_alternative_name().unwrap();
            let names = names
                .into_iter()
                .flat_map(|names| &names.value.general_names);
            let names: Vec<String> = names.map(ToString::to_string).collect();
            let validity = certificate.validity();
            let span = [validity.not_before, validity.not_after];
            (names, span.map(|at| at.timestamp() - seconds))
        };
        let day = 24 * 3600;
        let (_, root) = read(authority.certificate());
        assert!(root[0] <= 0 && root[1] >= 20 * 365 * day, "{root:?}");
        for (role, more) in [(Role::Worker, vec![]), (Role::Manager, vec!["swarm-ca"])] {
            let title = NodeTitle {
                node: NodeId::numbered(1),
                cluster: ClusterId::numbered(2),
                role,
            };
            let (_, csr) = new_key().unwrap();
            let (names, span) = read(&authority.sign(&csr, title, VALIDITY).unwrap());
            assert_eq!(span, [-3600, 90 * day]);
            let wanted = [organisational_unit(role), title.node.as_str()];
            let wanted = wanted.into_iter().chain(more);
            let wanted: Vec<String> = wanted.map(|name| format!("DNSName({name})")).collect();
            assert_eq!(names, wanted);
        }
    }

    #[test]
    fn docker_is_shown_the_root() {
        let authority = Authority::generate(NOW).unwrap();
        let shown = authority.tls_info().unwrap();
        assert_eq!(shown.trust_root, authority.certificate());
        assert!(shown.trust_root.ends_with("-----END CERTIFICATE-----\n"));
        assert_eq!(shown.cert_issuer_subject, "MBMxETAPBgNVBAMMCHN3YXJtLWNh");
    }

    proptest! {
        #[test]
        fn a_damaged_request_is_refused(flip in 28usize..300) {
            let authority = Authority::generate(NOW).unwrap();
            let (_, csr) = new_key().unwrap();
            let mut bytes = csr.into_bytes();
            let at = flip % bytes.len();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let title = NodeTitle {
                node: NodeId::numbered(1),
                cluster: ClusterId::numbered(2),
                role: Role::Worker,
            };
            if let Ok(text) = String::from_utf8(bytes) {
                // Whatever is damaged, nothing but a refusal or a certificate with our title.
                if let Ok(certificate) = authority.sign(&text, title, VALIDITY) {
                    let (_, pem) = parse_x509_pem(certificate.as_bytes()).unwrap();
                    prop_assert_eq!(Caller::parse(&pem.contents).unwrap().role, Role::Worker);
                }
            }
        }
    }
}
