//! From a location, options and variables to the client of an object store.

use std::{str::FromStr, sync::Arc};

use muster_model::{Location, location::is_amazon};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
};

use crate::{error::StoreError, http::Client, options::Options, variables::Variables};

/// What Amazon's host stands for when it names no region.
const REGION: &str = "us-east-1";

const AZURE_SUFFIX: &str = "core.windows.net";

/// Repeating is one place's business, for all stores.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() }
}

fn unusable(location: &Location) -> impl Fn(object_store::Error) -> StoreError + use<'_> {
    |error| StoreError::Credentials { location: location.to_string(), why: error.to_string() }
}

/// Where the requests go that `object_store` does not know.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The URL of the bucket, without a slash at its end.
    pub(crate) bucket: String,
    pub(crate) region: String,
}

/// A bucket of S3.
#[derive(Debug)]
pub(crate) struct S3 {
    pub(crate) store: Arc<AmazonS3>,
    pub(crate) address: Address,
}

/// A bucket of S3.
pub(crate) fn s3(
    location: &Location,
    (endpoint, bucket): (&str, &str),
    options: &Options,
    variables: &Variables,
    client: Client,
) -> Result<S3, StoreError> {
    let region = options.get("s3.region").map(str::to_owned);
    let region = region
        .or_else(|| region_of(endpoint).map(str::to_owned))
        .or_else(|| variables.get("AWS_REGION").map(|region| region.to_string()))
        .or_else(|| variables.get("AWS_DEFAULT_REGION").map(|region| region.to_string()))
        .unwrap_or_else(|| REGION.to_owned());
    let is_virtual = match options.get("s3.bucket-lookup") {
        Some("dns") => true,
        Some("path") => false,
        // A dot in the bucket's name would not match the host's certificate.
        _ => is_amazon(endpoint) && !bucket.contains('.'),
    };
    let url = endpoint_for(endpoint, bucket, &region, is_virtual);
    let address = Address {
        bucket: if is_virtual { url.clone() } else { format!("{url}/{bucket}") },
        region: region.clone(),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_endpoint(url)
        .with_virtual_hosted_style_request(is_virtual)
        .with_region(region)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_allow_http(endpoint.starts_with("http://"))
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_skip_signature(options.is_true("s3.unsafe-anonymous-auth"))
        // It would send the request for many even for one object, which not every store knows.
        .with_disable_bulk_delete(true)
        .with_retry(once())
        .with_http_connector(client);
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ] {
        if let (Some(value), Ok(key)) =
            (variables.get(name), AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()))
        {
            builder = builder.with_config(key, value.as_str());
        }
    }
    let store = builder.build().map_err(unusable(location))?;
    Ok(S3 { store: Arc::new(store), address })
}

/// The region that a host of Amazon's names: `s3.REGION.amazonaws.com`, `s3-REGION.…`.
fn region_of(endpoint: &str) -> Option<&str> {
    let host = endpoint.split_once("://")?.1;
    let (before, _) = host.split_once(".amazonaws.com")?;
    let region = before.strip_prefix("s3.").or_else(|| before.strip_prefix("s3-"))?;
    let region = region.strip_prefix("dualstack.").unwrap_or(region);
    (!region.is_empty()).then_some(region)
}

fn endpoint_for(endpoint: &str, bucket: &str, region: &str, is_virtual: bool) -> String {
    let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let regional = format!("s3.{region}.amazonaws.com");
    let host = if host == "s3.amazonaws.com" { &regional } else { host };
    match is_virtual {
        true => format!("{scheme}://{bucket}.{host}"),
        false => format!("{scheme}://{host}"),
    }
}

/// A container of Azure.
pub(crate) fn azure(
    location: &Location,
    container: &str,
    options: &Options,
    variables: &Variables,
    client: Client,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let account = variables.get("AZURE_ACCOUNT_NAME").ok_or_else(|| StoreError::Credentials {
        location: location.to_string(),
        why: "AZURE_ACCOUNT_NAME is not set".to_owned(),
    })?;
    let suffix = variables.get("AZURE_ENDPOINT_SUFFIX");
    let suffix = suffix.as_ref().map_or(AZURE_SUFFIX, |suffix| suffix.as_str());
    let own = format!("https://{}.blob.{suffix}", account.as_str());
    let endpoint = options.get("azure.endpoint").map_or(own, str::to_owned);
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account.as_str())
        .with_container_name(container)
        .with_allow_http(endpoint.starts_with("http://"))
        .with_endpoint(endpoint)
        .with_retry(once())
        .with_http_connector(client);
    for (name, key) in [
        ("AZURE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
        ("AZURE_ACCOUNT_SAS", AzureConfigKey::SasKey),
        ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
        ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
        ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
        ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ] {
        if let Some(value) = variables.get(name) {
            builder = builder.with_config(key, value.as_str());
        }
    }
    Ok(Arc::new(builder.build().map_err(unusable(location))?))
}

/// A bucket of Google's.
pub(crate) fn gcs(
    location: &Location,
    bucket: &str,
    options: &Options,
    variables: &Variables,
    client: Client,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_skip_signature(options.is_true("gs.unsafe-anonymous-auth"))
        .with_retry(once())
        .with_http_connector(client);
    if let Some(endpoint) = options.get("gs.endpoint") {
        let plain = ClientOptions::new().with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_base_url(endpoint).with_client_options(plain);
    }
    if let Some(token) = variables.get("GOOGLE_ACCESS_TOKEN") {
        builder = builder.with_bearer_token(token.as_str());
    } else if let Some(file) = options.get("gs.credentials-file") {
        builder = builder.with_application_credentials(file);
    } else if let Some(file) = variables.get("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(file.as_str());
    }
    Ok(Arc::new(builder.build().map_err(unusable(location))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_regions() {
        assert_eq!(region_of("https://s3.eu-west-1.amazonaws.com"), Some("eu-west-1"));
        assert_eq!(region_of("https://s3.dualstack.eu-west-1.amazonaws.com"), Some("eu-west-1"));
        assert_eq!(region_of("https://s3.amazonaws.com"), None);
        assert_eq!(region_of("https://minio.example.org"), None);
    }

    #[test]
    fn buckets_stand_in_the_host_or_in_the_path() {
        let check = |endpoint: &str, is_virtual: bool, expected: &str| {
            assert_eq!(endpoint_for(endpoint, "b", "eu-west-1", is_virtual), expected);
        };
        check("https://s3.amazonaws.com", true, "https://b.s3.eu-west-1.amazonaws.com");
        check("https://s3.eu-west-1.amazonaws.com", false, "https://s3.eu-west-1.amazonaws.com");
        check("http://127.0.0.1:9000", false, "http://127.0.0.1:9000");
    }
}
