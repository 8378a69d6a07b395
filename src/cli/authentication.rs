//! Flags and files of `coxswain server` that say whose credentials are taken: the key of
//! service-account tokens, an OpenID Connect provider, webhooks. Certificates' authorities are in `authorities`.

use anyhow::{Context, Result, bail};
use apiserver::{
    Keyring,
    authn::{Oidc, OidcConfig, SigningKey, TokenWebhook, Tokens, service_account::ISSUER},
    authz::AccessWebhook,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(clap::Args)]
pub(super) struct AuthenticationArgs {
    /// Who service-account tokens say issued them; pods and others fetch the keys from there
    #[arg(long, default_value = ISSUER)]
    service_account_issuer: String,

    /// Kubeconfig of a service that is shown tokens nobody here knows
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,

    /// Kubeconfig of a service that is asked about what neither Node nor RBAC allows
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,

    /// URL of an OpenID Connect provider whose tokens are taken; https only
    #[arg(long)]
    oidc_issuer_url: Option<String>,

    /// The audience its tokens must name
    #[arg(long, default_value = "")]
    oidc_client_id: String,

    /// The claim that is the user's name
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,

    /// Before users' names; `-` for nothing
    #[arg(long, default_value = "")]
    oidc_username_prefix: String,

    /// The claim with the user's groups
    #[arg(long, default_value = "")]
    oidc_groups_claim: String,

    /// Before groups' names
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,

    /// KEY=VALUE that a token must have; may be repeated
    #[arg(long)]
    oidc_required_claim: Vec<String>,

    /// Certificates of the provider's authority
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
}

impl AuthenticationArgs {
    /// Fills in what the server must know of credentials.
    pub(super) fn apply(&self, pki: &Path, config: &mut apiserver::Config) -> Result<()> {
        let key = SigningKey::from_pem(&read(pki, "sa.key")?)
            .map_err(|why| anyhow::anyhow!("{}: {why}", pki.join("sa.key").display()))?;
        config.tokens = Arc::new(Tokens::new(key, &self.service_account_issuer));
        config.oidc = self.oidc()?.map(Arc::new);
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let webhook = TokenWebhook::from_kubeconfig(path).map_err(|why| {
                anyhow::anyhow!("--authentication-token-webhook-config-file: {why}")
            })?;
            config.token_webhook = Some(Arc::new(webhook));
        }
        if let Some(path) = &self.authorization_webhook_config_file {
            let webhook = AccessWebhook::from_kubeconfig(path)
                .map_err(|why| anyhow::anyhow!("--authorization-webhook-config-file: {why}"))?;
            config.access_webhook = Some(Arc::new(webhook));
        }
        Ok(())
    }

    fn oidc(&self) -> Result<Option<Oidc>> {
        let Some(issuer) = &self.oidc_issuer_url else { return Ok(None) };
        let ca_pem = match &self.oidc_ca_file {
            Some(path) => {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => bail!("--oidc-issuer-url needs --oidc-ca-file"),
        };
        let pair = |text: &String| -> Result<(String, String)> {
            let (key, value) = text
                .split_once('=')
                .with_context(|| format!("--oidc-required-claim {text}: not KEY=VALUE"))?;
            Ok((key.to_string(), value.to_string()))
        };
        let config = OidcConfig {
            issuer: issuer.clone(),
            client_id: self.oidc_client_id.clone(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.iter().map(pair).collect::<Result<_>>()?,
            ca_pem,
        };
        Oidc::new(config).map(Some).map_err(|why| anyhow::anyhow!("--oidc-issuer-url: {why}"))
    }
}

/// What seals Secrets on this master's disk and in its log.
pub(super) fn keyring(pki: &Path) -> Result<Arc<Keyring>> {
    let text = String::from_utf8(read(pki, "secrets.key")?).context("secrets.key is no text")?;
    let keyring = Keyring::parse(&text, &["secrets"]);
    let keyring = keyring.map_err(|why| anyhow::anyhow!("secrets.key: {why}"))?;
    Ok(Arc::new(keyring))
}

fn read(pki: &Path, name: &str) -> Result<Vec<u8>> {
    let path = pki.join(name);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
