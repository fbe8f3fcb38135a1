//! ImageLocality: a node that has the pod's images starts it sooner. Images that few nodes have count less, so that a
//! popular node does not get everything.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Normalize, Plugin, SCORE_MAX, Score};
use crate::node::Node;
use crate::pod::Pod;

const MIB: i64 = 1024 * 1024;
/// Less than this is fetched in no time.
const SMALLEST: i64 = 23 * MIB;
/// More than this per container makes no more difference.
const LARGEST: i64 = 1000 * MIB;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let nodes = i64::try_from(cycle.cache.nodes().count()).unwrap_or(i64::MAX);
        let spread: Vec<(String, i64)> = cycle
            .pod
            .spec
            .images
            .iter()
            .map(|image| normal_name(image))
            .map(|image| {
                let with = i64::try_from(cycle.cache.nodes_with_image(&image)).unwrap_or(i64::MAX);
                (image, with)
            })
            .collect();
        if spread.iter().all(|(_, with)| *with == 0) {
            return None;
        }
        let containers = i64::try_from(spread.len()).unwrap_or(i64::MAX);
        let of = move |node: &Node| {
            let here = spread.iter().filter_map(|(image, with)| Some((node.offer.images.get(image.as_str())?, with)));
            let sum: i64 = here.map(|(size, with)| scaled(*size, *with, nodes)).sum();
            let largest = LARGEST * containers;
            SCORE_MAX * (sum.clamp(SMALLEST, largest) - SMALLEST) / (largest - SMALLEST)
        };
        Some(Score { of: Box::new(of), normalize: Normalize::No })
    }

    fn helps(&self, _: &Pod, _: &Event, _: &Cache) -> bool {
        false
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "sizes of images, far below 2^52")]
fn scaled(size: i64, with: i64, nodes: i64) -> i64 {
    (size as f64 * (with as f64 / nodes.max(1) as f64)) as i64
}

/// As container runtimes report it: with a tag.
fn normal_name(image: &str) -> String {
    let after_host = image.rsplit('/').next().unwrap_or(image);
    if after_host.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag() {
        for (name, expected) in [
            ("a", "a:latest"),
            ("host:5000/a", "host:5000/a:latest"),
            ("host:5000/a:1", "host:5000/a:1"),
            ("a@sha256:0", "a@sha256:0"),
        ] {
            assert_eq!(normal_name(name), expected);
        }
    }
}
