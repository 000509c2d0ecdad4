//! The image that sandboxes run: one program that waits, made here and handed to containerd through its
//! own API, so that a node needs no registry to start its first pod.

mod program;

use crate::containerd::hex;
use crate::cri::Client;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, InfoRequest, UpdateImageRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::types::Descriptor;
use futures_util::stream;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// What the image is called. A new program is a new number.
pub const NAME: &str = "beemesh.local/pause:1";

/// containerd's own namespace for what its CRI manages.
const NAMESPACE: &str = "k8s.io";
/// How long a part may lie unreferenced while it is brought in.
const LEASE: &str = "beemesh-pause";
/// How long all of it may take, until the CRI has noticed the image.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// A part of the image: JSON or a tar.
#[derive(Clone, Debug)]
struct Part {
    media_type: &'static str,
    bytes: Vec<u8>,
    /// What the garbage collector must keep as long as it keeps this.
    keeps: Vec<String>,
}

impl Part {
    fn digest(&self) -> String {
        digest(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len()})
    }

    fn labels(&self) -> HashMap<String, String> {
        let label = |(i, digest): (usize, &String)| (format!("containerd.io/gc.ref.content.{i}"), digest.clone());
        self.keeps.iter().enumerate().map(label).collect()
    }
}

/// The image in the parts it is stored in (OCI image specification 1.0), what is referenced first.
struct Oci {
    layer: Part,
    config: Part,
    manifest: Part,
}

impl Oci {
    /// The image for machines of this kind (`std::env::consts::ARCH`); `None` if we have no program for it.
    fn of(arch: &str) -> Option<Oci> {
        let (program, goarch) = match arch {
            "x86_64" => (program::x86_64(), "amd64"),
            "aarch64" => (program::aarch64(), "arm64"),
            _ => return None,
        };
        let layer = Part {
            media_type: "application/vnd.oci.image.layer.v1.tar",
            bytes: tar("pause", &program),
            keeps: Vec::new(),
        };
        let config = json!({
            "architecture": goarch,
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            "history": [{"created_by": "beemesh"}],
        });
        let config = Part {
            media_type: "application/vnd.oci.image.config.v1+json",
            bytes: config.to_string().into_bytes(),
            keeps: Vec::new(),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Part {
            media_type: "application/vnd.oci.image.manifest.v1+json",
            bytes: manifest.to_string().into_bytes(),
            keeps: vec![config.digest(), layer.digest()],
        };
        Some(Oci { layer, config, manifest })
    }
}

/// Brings the image in, if the CRI does not have it yet, and returns once the CRI has it.
///
/// # Errors
/// What containerd said. Parts that came in are thrown away by its garbage collector.
pub(crate) async fn import(channel: Channel, cri: &Client) -> Result<(), String> {
    let late = |_| Err(format!("containerd did not take the image {NAME} within {TAKEN_WITHIN:?}"));
    tokio::time::timeout(TAKEN_WITHIN, bring_in(channel, cri)).await.unwrap_or_else(late)
}

async fn bring_in(channel: Channel, cri: &Client) -> Result<(), String> {
    let told = |e: Status| format!("containerd did not take the image {NAME}: {e}");
    let arch = std::env::consts::ARCH;
    let image = Oci::of(arch).ok_or_else(|| {
        format!("there is no {NAME} for {arch} machines: give a runtime that has a pause image of its own with --cri")
    })?;
    let has = || async { matches!(cri.image_id(NAME).await, Ok(Some(id)) if id == image.config.digest()) };
    if has().await {
        return Ok(());
    }
    let mut leases = LeasesClient::new(channel.clone());
    let created = leases
        .create(at_home(CreateRequest {
            id: LEASE.into(),
            labels: [("containerd.io/gc.expire".to_owned(), in_an_hour())].into(),
        }))
        .await;
    if let Err(e) = created
        && e.code() != Code::AlreadyExists
    {
        return Err(told(e));
    }
    let mut content = ContentClient::new(channel.clone());
    for part in [&image.layer, &image.config, &image.manifest] {
        write(&mut content, part).await.map_err(told)?;
    }
    let mut images = ImagesClient::new(channel);
    // The CRI knows an image by the digest of its configuration, too.
    for name in [image.config.digest(), NAME.to_owned()] {
        put(&mut images, name, &image.manifest).await.map_err(told)?;
    }
    let _ = leases.delete(at_home(DeleteRequest { id: LEASE.into(), sync: false })).await;

    // The CRI hears of it as an event.
    while !has().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Writes one part, unless it is there.
async fn write(content: &mut ContentClient<Channel>, part: &Part) -> Result<(), Status> {
    if content.info(at_home(InfoRequest { digest: part.digest() })).await.is_ok() {
        return Ok(());
    }
    let message = WriteContentRequest {
        action: WriteAction::Commit as i32,
        r#ref: format!("beemesh-{}", part.digest()),
        total: part.bytes.len() as i64,
        expected: part.digest(),
        offset: 0,
        data: part.bytes.clone(),
        labels: part.labels(),
    };
    let mut request = at_home(stream::iter([message]));
    // Parts without a reference are kept by the lease.
    request.metadata_mut().insert("containerd-lease", tonic::metadata::MetadataValue::from_static(LEASE));
    match content.write(request).await {
        Ok(answers) => {
            let mut answers = answers.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        }
        Err(e) if e.code() == Code::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Names the image.
async fn put(images: &mut ImagesClient<Channel>, name: String, manifest: &Part) -> Result<(), Status> {
    let labels = [("io.cri-containerd.image", "managed"), ("io.cri-containerd.pinned", "pinned")];
    let image = Image {
        name,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        target: Some(Descriptor {
            media_type: manifest.media_type.into(),
            digest: manifest.digest(),
            size: manifest.bytes.len() as i64,
            annotations: HashMap::new(),
        }),
        ..Image::default()
    };
    let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
    match images.create(at_home(create)).await {
        Err(e) if e.code() == Code::AlreadyExists => {
            let update = UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
            images.update(at_home(update)).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// A request in the CRI's namespace.
pub(crate) fn at_home<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

fn in_an_hour() -> String {
    (crate::wall() + Duration::from_secs(3600)).rfc3339()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// A tar (POSIX ustar) with one executable file in it; always the same bytes for the same file.
fn tar(name: &str, file: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000755\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", file.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(file);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_layer_is_a_tar_that_tar_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("layer.tar");
        std::fs::write(&file, Oci::of("x86_64").unwrap().layer.bytes).unwrap();
        let out = Command::new("tar").args(["--list", "--verbose", "--file"]).arg(&file).output().unwrap();
        let listed = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && listed.starts_with("-rwxr-xr-x 0/0"), "{listed}");
        assert!(listed.trim_end().ends_with(" pause"), "{listed}");
    }

    #[test]
    fn everything_is_named_by_what_is_in_it() {
        for arch in ["x86_64", "aarch64"] {
            let image = Oci::of(arch).unwrap();
            let config: Value = serde_json::from_slice(&image.config.bytes).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"], json!([image.layer.digest()]));
            let manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
            assert_eq!(manifest["config"]["digest"], json!(image.config.digest()));
            assert_eq!(manifest["layers"][0]["size"], json!(image.layer.bytes.len()));
            assert_eq!(image.manifest.labels().len(), 2);
        }
        assert!(Oci::of("riscv64").is_none());
    }

    #[test]
    fn the_bytes_are_the_same_on_every_machine() {
        let name = |arch| Oci::of(arch).unwrap().manifest.digest();
        assert_eq!(name("x86_64"), "sha256:e660966938eca6ebbbe8c283bf4186adcc83e994f8e698eab34f3f84f2dee850");
        assert_eq!(name("aarch64"), "sha256:442cf88d7498ed5932c5a9ba8f2055e63aa23d14ebb07079b8cfecabf92efdea");
    }
}
