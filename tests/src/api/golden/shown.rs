//! The forms in which an object and its collection can be had: lists and their pages, tables, metadata alone, protobuf.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::super::session::Answer;
use super::life::{Life, version};
use super::{is, text};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The object and the other one that apply made carry the same label.
pub async fn all(life: &mut Life<'_>) -> Result<()> {
    lists(life).await?;
    tables(life).await?;
    binary(life).await
}

async fn accepting(life: &mut Life<'_>, path: &str, accept: &str) -> Result<Answer> {
    life.session.ask_with(Method::GET, path, &[("accept", accept)], Bytes::new()).await
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn lists(life: &mut Life<'_>) -> Result<()> {
    let by_label = format!("{}?labelSelector=part%3Dgolden", life.row.at);
    let list = life.session.get(&by_label).await?.json();
    ensure!(list["kind"] == format!("{}List", life.known.kind), "the list's kind: {}", list["kind"]);
    ensure!(list["apiVersion"] == life.known.group_version.as_str(), "the list's version: {}", list["apiVersion"]);
    ensure!(names(&list).len() == 2, "by label: {:?}", names(&list));
    let by_name =
        life.session.get(&format!("{}?fieldSelector=metadata.name%3D{}", life.row.at, life.name)).await?.json();
    ensure!(names(&by_name) == [life.name.as_str()], "by name: {:?}", names(&by_name));
    let first = life.session.get(&format!("{by_label}&limit=1")).await?.json();
    let token = first["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    ensure!(names(&first).len() == 1 && !token.is_empty(), "the first page: {first}");
    let rest = life.session.get(&format!("{by_label}&limit=1&continue={token}")).await?.json();
    ensure!(names(&rest).len() == 1 && names(&rest) != names(&first), "the second page: {rest}");
    if let Some(token) = rest["metadata"]["continue"].as_str() {
        // Objects that do not match follow; the server finds that out on the next page only.
        let last = life.session.get(&format!("{by_label}&limit=1&continue={token}")).await?.json();
        ensure!(names(&last).is_empty() && last["metadata"].get("continue").is_none(), "the third page: {last}");
    }
    ensure!(rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "pages of different versions");
    let (everywhere, _) = life.row.at.split_once("namespaces/default/").unwrap_or((&life.row.at, ""));
    let plural = life.row.at.rsplit('/').next().unwrap_or_default();
    let all =
        format!("{}/{plural}?labelSelector=part%3Dgolden", everywhere.trim_end_matches(plural).trim_end_matches('/'));
    let all = life.session.get(&all).await?.json();
    ensure!(names(&all).len() == 2, "of all namespaces: {all}");
    Ok(())
}

async fn tables(life: &mut Life<'_>) -> Result<()> {
    let (own, at) = (life.own.clone(), format!("{}?labelSelector=part%3Dgolden", life.row.at));
    for (path, rows) in [(&own, 1), (&at, 2)] {
        let table = accepting(life, path, TABLE).await?;
        is(&table, 200, "a table")?;
        let table = table.json();
        let columns = table["columnDefinitions"].as_array().map_or(0, Vec::len);
        ensure!(table["kind"] == "Table" && table["apiVersion"] == "meta.k8s.io/v1", "no table: {table}");
        ensure!(table["columnDefinitions"][0]["name"] == "Name" || columns > 1, "the columns of {table}");
        ensure!(table["rows"].as_array().map_or(0, Vec::len) == rows, "the rows of {table}");
        for row in table["rows"].as_array().into_iter().flatten() {
            ensure!(row["cells"].as_array().map_or(0, Vec::len) == columns, "as many cells as columns: {row}");
            ensure!(row["object"]["kind"] == "PartialObjectMetadata", "a row's object: {row}");
        }
    }
    let metadata = accepting(life, &own, METADATA).await?;
    is(&metadata, 200, "its metadata")?;
    let metadata = metadata.json();
    ensure!(
        metadata["kind"] == "PartialObjectMetadata" && metadata["metadata"]["name"] == life.name.as_str(),
        "{metadata}"
    );
    ensure!(metadata.as_object().is_some_and(|m| m.len() == 3), "more than metadata: {metadata}");
    let list = accepting(life, &at, METADATA_LIST).await?.json();
    ensure!(list["kind"] == "PartialObjectMetadataList" && names(&list).len() == 2, "{list}");
    is(&accepting(life, &own, "text/html").await?, 406, "a form that there is not")
}

/// What is read as protobuf and written back changes nothing.
async fn binary(life: &mut Life<'_>) -> Result<()> {
    let own = life.own.clone();
    let found = life.session.get(&own).await?;
    let bytes = accepting(life, &own, PROTOBUF).await?;
    is(&bytes, 200, "as protobuf")?;
    ensure!(bytes.body.starts_with(b"k8s\0"), "no protobuf: {}", text(&bytes));
    let again = life.session.ask(Method::PUT, &own, PROTOBUF, bytes.body).await?;
    is(&again, 200, "an update in protobuf")?;
    ensure!(
        version(&again) == version(&found),
        "the way through protobuf changed {} to {}",
        text(&found),
        text(&again)
    );
    let at = format!("{}?labelSelector=part%3Dgolden", life.row.at);
    let list = accepting(life, &at, PROTOBUF).await?;
    ensure!(list.status == 200 && list.body.starts_with(b"k8s\0"), "a list as protobuf: {}", text(&list));
    Ok(())
}
