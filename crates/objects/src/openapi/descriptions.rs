//! The types' documentation: Kubernetes' own, by way of the k8s-openapi crate (see `data/NOTICE`).

use flate2::read::ZlibDecoder;
use std::collections::BTreeMap;

/// Deflated JSON: type name to field to text, the type's own under the empty field.
pub(super) const TEXTS: &[u8] = include_bytes!("../../../../data/descriptions.json.z");

/// The texts, unpacked for as long as a document is being made.
pub(super) struct Descriptions(BTreeMap<String, BTreeMap<String, String>>);

impl Descriptions {
    /// Unpacks the compiled-in texts. They are our own file, so a fault in it is a fault of the build and
    /// panics.
    pub(super) fn read() -> Self {
        match serde_json::from_reader(ZlibDecoder::new(TEXTS)) {
            Ok(texts) => Descriptions(texts),
            Err(e) => panic!("data/descriptions.json.z, which is compiled in, does not parse: {e}"),
        }
    }

    /// The text of a type's field, or of the type if the field is empty; `None` if there is none.
    pub(super) fn get(&self, ty: &str, field: &str) -> Option<&str> {
        let own = self.0.get(ty).and_then(|t| t.get(field));
        // Kubernetes says the same of these two, and of a list's metadata, wherever they stand.
        const EVERYWHERE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
        let shared = || match field {
            "kind" | "apiVersion" => self.0.get("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")?.get(field),
            "metadata" if ty.ends_with("List") => self.0.get(EVERYWHERE)?.get(field),
            _ => None,
        };
        own.or_else(shared).map(String::as_str)
    }
}
