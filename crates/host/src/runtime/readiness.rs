//! Whether the runtime can run a pod, and what it must be given if it cannot.

use super::Runtime;
use base::runtime::Failure;
use serde_json::Value;

impl Runtime {
    /// What keeps the runtime from running pods, a letter each; empty if nothing does. What matters most of
    /// a runtime that was given with `--cri`, since nothing of it is ours to set up.
    ///
    /// # Errors
    /// Why the runtime does not say.
    pub async fn lacks(&self) -> Result<Vec<String>, Failure> {
        let status = self.client.status().await?;
        let mut lacks: Vec<_> = status
            .status
            .unwrap_or_default()
            .conditions
            .into_iter()
            .filter(|c| !c.status)
            .map(|c| match c.r#type.as_str() {
                "NetworkReady" => format!(
                    "{} has no network for pods ({}): put a CNI configuration where it looks for one, by default \
                     /etc/cni/net.d",
                    self.version, c.message
                ),
                _ => format!("{} says that it is not {} ({}: {})", self.version, c.r#type, c.reason, c.message),
            })
            .collect();
        if let Some(image) = status.info.get("config").and_then(|c| pause_image(c))
            && self.client.image_id(&image).await?.is_none()
        {
            lacks.push(format!(
                "{} runs pods with the image {image}, which it does not have. It pulls it with the first pod; a machine \
                 without that registry must be given it: ctr --namespace k8s.io images import FILE",
                self.version
            ));
        }
        Ok(lacks)
    }
}

/// The image of sandboxes, as containerd names it in what it says of itself.
fn pause_image(config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(config).ok()?;
    Some(config["sandboxImage"].as_str().filter(|image| !image.is_empty())?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_says_which_image_it_needs() {
        let said = r#"{"containerd":{"snapshotter":"overlayfs"},"sandboxImage":"registry.k8s.io/pause:3.9"}"#;
        assert_eq!(pause_image(said).as_deref(), Some("registry.k8s.io/pause:3.9"));
        assert_eq!(pause_image(r#"{"sandboxImage":""}"#), None);
        assert_eq!(pause_image("crio"), None);
    }
}
