//! What a node asks for: the PKCS#10 request and the CertificateSigningRequest around it, as a kubelet
//! makes them.

use super::files::Facts;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s::Object;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, SanType};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

/// Hexadecimal digits of a request's name: 128 bits do not meet by chance.
const NAME_DIGITS: usize = 32;

/// A certificate that the node wants.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(super) node: String,
    purpose: Purpose,
}

#[derive(Clone, Debug)]
enum Purpose {
    /// To the masters.
    Client,
    /// To whoever calls the kubelet API at this address.
    Serving(IpAddr),
}

impl Wanted {
    pub(crate) fn client(node: &str) -> Wanted {
        Wanted { node: node.into(), purpose: Purpose::Client }
    }

    pub(crate) fn serving(node: &str, address: IpAddr) -> Wanted {
        Wanted { node: node.into(), purpose: Purpose::Serving(address) }
    }

    /// What people call it.
    pub(super) fn what(&self) -> &'static str {
        match self.purpose {
            Purpose::Client => "client certificate",
            Purpose::Serving(_) => "certificate of the kubelet API",
        }
    }

    /// What people can do if it is not renewed.
    pub(super) fn remedy(&self) -> &'static str {
        match self.purpose {
            Purpose::Client => {
                "If it ends before that works: `coxswain token create --node` where there is a \
                 kubeconfig, and start this agent with the line it prints."
            }
            Purpose::Serving(_) => {
                "Without it nobody reads logs or runs commands on this node. `kubectl get csr` shows \
                 the request, `kubectl certificate approve` answers it."
            }
        }
    }

    pub(super) fn user(&self) -> String {
        format!("system:node:{}", self.node)
    }

    /// Whom the certificate stands for besides its subject: what the Node must say of itself before
    /// masters approve it.
    pub(super) fn names(&self) -> Vec<String> {
        match self.purpose {
            Purpose::Client => Vec::new(),
            Purpose::Serving(address) => {
                vec![self.node.to_ascii_lowercase(), address.to_string()]
            }
        }
    }

    /// Whether a certificate is one for this node. More names than are wanted are no fault.
    pub(super) fn is_met_by(&self, facts: &Facts) -> bool {
        facts.common_name == self.user()
            && self.names().iter().all(|name| facts.names.contains(name))
    }

    /// The request for `key`. Its name says what is asked for which key: asking twice is asking once.
    pub(super) fn request(&self, key: &KeyPair) -> Result<Object, rcgen::Error> {
        let (signer, usage) = match self.purpose {
            Purpose::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
            Purpose::Serving(_) => ("kubernetes.io/kubelet-serving", "server auth"),
        };
        let mut digest = Sha256::new().chain_update(signer).chain_update(key.der_bytes());
        for name in [self.user()].into_iter().chain(self.names()) {
            digest.update(name + "\n");
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let value = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": format!("node-csr-{}", &digest[..NAME_DIGITS])},
            "spec": {
                "request": STANDARD.encode(self.pkcs10(key)?),
                "signerName": signer,
                // Key encipherment is for RSA keys alone.
                "usages": ["digital signature", usage],
            },
        });
        Ok(Object::from_value(value).unwrap_or_default())
    }

    fn pkcs10(&self, key: &KeyPair) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "system:nodes");
        subject.push(DnType::CommonName, self.user());
        params.distinguished_name = subject;
        if let Purpose::Serving(address) = self.purpose {
            let name = self.node.as_str().try_into()?;
            params.subject_alt_names = vec![SanType::DnsName(name), SanType::IpAddress(address)];
        }
        params.serialize_request(key)?.pem()
    }
}
