//! `xtask descriptions`: the documentation of Kubernetes' types in `data/descriptions.json.z`.
//!
//! Taken from the doc comments of the k8s-openapi crate (Apache-2.0; see `data/NOTICE`), whose unpacked
//! source is read as text: nothing here or in the program depends on the crate.

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the source is and where the texts go.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The crate's directory for one Kubernetes release, as cargo unpacked it: `k8s-openapi-0.29.0/src/v1_37`.
    #[arg(long)]
    source: PathBuf,
    /// The file to write.
    #[arg(long, default_value = "data/descriptions.json.z")]
    out: PathBuf,
}

/// Texts by type name, then by field; the type's own under the empty field.
type Texts = BTreeMap<String, BTreeMap<String, String>>;

/// Runs the chore.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut texts = Texts::new();
    read_dir(&args.source, "io.k8s", &mut texts)?;
    let mut z = ZlibEncoder::new(Vec::new(), Compression::best());
    z.write_all(&serde_json::to_vec(&texts)?)?;
    let bytes = z.finish()?;
    std::fs::write(&args.out, &bytes).with_context(|| args.out.display().to_string())?;
    println!("{}: {} types, {} bytes", args.out.display(), texts.len(), bytes.len());
    Ok(())
}

fn read_dir(dir: &Path, package: &str, texts: &mut Texts) -> Result<()> {
    for e in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = e?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if path.is_dir() {
            // The two packages whose names Rust cannot spell.
            let part = match name {
                "apiextensions_apiserver" => "apiextensions-apiserver",
                "kube_aggregator" => "kube-aggregator",
                other => other,
            };
            read_dir(&path, &format!("{package}.{part}"), texts)?;
        } else if name.ends_with(".rs") {
            read_file(&std::fs::read_to_string(&path)?, package, texts);
        }
    }
    Ok(())
}

fn read_file(text: &str, package: &str, texts: &mut Texts) {
    // `"apiVersion" => Field::Key_api_version`: a field's JSON name beside its Rust name.
    let json_names: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|l| {
            let (json, rust) = l.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
            Some((rust.trim_end_matches(','), json))
        })
        .collect();
    let mut doc: Vec<&str> = Vec::new();
    let mut fields: Option<(String, BTreeMap<String, String>)> = None;
    for line in text.lines() {
        let code = line.trim();
        if let Some(d) = code.strip_prefix("///") {
            doc.push(d.strip_prefix(' ').unwrap_or(d));
            continue;
        }
        if code.starts_with("#[") {
            continue;
        }
        let text = unescape(&std::mem::take(&mut doc).join("\n"));
        match &mut fields {
            None => {
                if let Some(rest) = line.strip_prefix("pub struct ") {
                    let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                    fields = Some((format!("{package}.{name}"), BTreeMap::from([(String::new(), text)])));
                    if !rest.ends_with('{') {
                        break;
                    }
                }
            }
            Some(_) if line == "}" => break,
            Some((_, fields)) => {
                if let Some((rust, _)) = line.strip_prefix("    pub ").and_then(|l| l.split_once(':')) {
                    let rust = rust.trim_start_matches("r#");
                    fields.insert((*json_names.get(rust).unwrap_or(&rust)).to_owned(), text);
                }
            }
        }
    }
    if let Some((name, mut fields)) = fields {
        fields.retain(|_, text| !text.is_empty());
        texts.insert(name, fields);
    }
}

/// Doc comments escape what Markdown would take for links.
fn unescape(text: &str) -> String {
    text.replace("\\[", "[").replace("\\]", "]").replace("\\<", "<").replace("\\>", ">")
}
