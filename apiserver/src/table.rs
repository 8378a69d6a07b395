//! `meta.k8s.io/v1 Table`: what `kubectl get` prints, made of a kind's columns.

use crate::{kind::Kind, pipeline::convert::stored_form, server::Include};
use jiff::Timestamp;
use k8s::Object;
use serde_json::{Value, json};

/// A table under way: its head, then row by row.
pub(crate) struct Table {
    /// `meta.k8s.io/v1` or its beta.
    meta: &'static str,
    now: Timestamp,
}

impl Table {
    pub(crate) fn new(meta: &'static str) -> Table {
        Table { meta, now: Timestamp::now() }
    }

    /// The table without rows. `with_columns`: upstream leaves the definitions out after the first
    /// table of a watch.
    pub(crate) fn head(&self, kind: &Kind, metadata: Value, with_columns: bool) -> Value {
        let columns = if with_columns { kind.column_definitions().into() } else { Value::Null };
        json!({
            "kind": "Table",
            "apiVersion": self.meta,
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": [],
        })
    }

    pub(crate) fn row(
        &self,
        kind: &Kind,
        version: &str,
        object: &Object,
        include: Include,
    ) -> Value {
        let seen = stored_form(kind, version, object);
        let cells = kind.cells(&seen, self.now);
        let object = match include {
            Include::None => Value::Null,
            Include::Metadata => crate::server::partial(object, self.meta),
            Include::Object => {
                let mut object = object.clone();
                crate::encode::stamp(&mut object, kind, version);
                object.into_value()
            }
        };
        match (kind.completed)(&seen) {
            None => json!({ "cells": cells, "object": object }),
            Some((reason, message)) => json!({
                "cells": cells,
                "conditions": [{
                    "type": "Completed",
                    "status": "True",
                    "reason": reason,
                    "message": message,
                }],
                "object": object,
            }),
        }
    }

    /// The table of one object.
    pub(crate) fn of(
        &self,
        kind: &Kind,
        version: &str,
        object: &Object,
        include: Include,
        with_columns: bool,
    ) -> Value {
        let revision = object.str_at("/metadata/resourceVersion");
        let metadata = json!({ "resourceVersion": revision });
        let mut table = self.head(kind, metadata, with_columns);
        table["rows"] = vec![self.row(kind, version, object, include)].into();
        table
    }
}
