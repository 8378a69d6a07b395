//! `meta.k8s.io/v1 Table`: what `kubectl get` prints, made of a kind's columns.

use crate::{
    kinds::{Column, KindDef},
    server::Include,
};
use jiff::Timestamp;
use k8s::Object;
use serde_json::{Value, json};

pub(crate) struct Table {
    metadata: Value,
    columns: Value,
    rows: Vec<Value>,
    now: Timestamp,
}

impl Table {
    /// `with_columns`: upstream leaves the definitions out after the first table of a watch.
    pub(crate) fn new(kind: &KindDef, metadata: Value, with_columns: bool) -> Table {
        let columns =
            if with_columns { kind.columns.iter().map(definition).collect() } else { Value::Null };
        Table { metadata, columns, rows: Vec::new(), now: Timestamp::now() }
    }

    pub(crate) fn push(
        &mut self,
        kind: &KindDef,
        version: &str,
        object: &Object,
        include: Include,
    ) {
        let now = self.now;
        let cells: Vec<Value> =
            kind.columns.iter().map(|column| (column.value)(object, now)).collect();
        let object = match include {
            Include::None => Value::Null,
            Include::Metadata => crate::server::partial(object),
            Include::Object => {
                let mut object = object.clone();
                crate::encode::stamp(&mut object, kind, version);
                object.into_value()
            }
        };
        self.rows.push(json!({ "cells": cells, "object": object }));
    }

    pub(crate) fn into_value(self) -> Value {
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": self.metadata,
            "columnDefinitions": self.columns,
            "rows": self.rows,
        })
    }
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    })
}
