//! `darner state`.

use std::{io::Read, sync::Arc};

use arrow_array::{ArrayRef, StringArray, UInt64Array};
use darner_engine::Error;
use darner_store::{KeyedState, NamespaceStats, Scan, Store};
use indicatif::{HumanBytes, HumanCount};

use crate::{
    args::{Namespace, State, StateDelete, StateGet, StatePut, StateScan},
    bytes,
    context::{Context, close_store},
    error::{Failure, Result},
    files::{counts, print_listing},
    print,
    time::duration_text,
};

pub(crate) fn run(context: &Context, command: &State) -> Result<()> {
    match command {
        State::Get(args) => get(context, args),
        State::Put(args) => put(context, args),
        State::Delete(args) => delete(context, args),
        State::Scan(args) => scan(context, args),
        State::List => list(context),
        State::Clear(args) => clear(context, args),
        State::Stats(args) => stats(context, args),
    }
}

/// A namespace that must be there: one that is not was misspelt.
fn existing<'s>(store: &'s Store, namespace: &str) -> Result<KeyedState<'s>> {
    let state = store.state(namespace)?;
    let names = store.namespaces();
    if names.iter().any(|name| name == namespace) {
        return Ok(state);
    }
    let known = if names.is_empty() {
        "the store has no keyed state".to_owned()
    } else {
        format!("namespaces=`{}`", names.join(", "))
    };
    Err(Error::not_found(format!(
        "no such namespace: namespace=`{namespace}`; {known}"
    ))
    .into())
}

fn get(context: &Context, args: &StateGet) -> Result<()> {
    let key = bytes::parse(&args.key, args.hex)?;
    let store = context.read_store()?;
    let Some(value) = existing(&store, &args.namespace)?.get(&key)? else {
        return Err(Error::not_found(format!(
            "no such key: namespace=`{}` key=`{}`",
            args.namespace,
            bytes::escape(args.key.as_bytes())
        ))
        .into());
    };
    if args.raw {
        return print::bytes(&value);
    }
    if context.json {
        return print::result(entry_json(&key, &value, args.hex));
    }
    if args.hex {
        return print::result(bytes::hex(&value));
    }
    if let Some(text) = bytes::as_plain_text(&value) {
        return print::result(text);
    }
    print::result(bytes::escape(&value))?;
    print::note(
        context,
        "the value is not plain text and is printed escaped; --raw or --hex prints its bytes",
    );
    Ok(())
}

fn put(context: &Context, args: &StatePut) -> Result<()> {
    let key = bytes::parse(&args.key, args.hex)?;
    let value = if args.value == "-" {
        let mut value = Vec::new();
        std::io::stdin()
            .read_to_end(&mut value)
            .map_err(|error| Error::io("cannot read standard input", error))?;
        value
    } else {
        bytes::parse(&args.value, args.hex)?
    };
    if args.ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(Error::invalid("an entry cannot end at once: ttl=`0`").into());
    }
    let store = context.open_store()?;
    let state = store.state(&args.namespace)?;
    let version = match args.ttl {
        None => state.put(&key, &value)?,
        Some(ttl) => state.put_for(&key, &value, ttl)?,
    };
    close_store(store);
    if context.json {
        return print::result(serde_json::json!({
            "namespace": args.namespace,
            "value_bytes": value.len(),
            "ttl_ms": args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            "version": version.number,
        }));
    }
    let ttl = args
        .ttl
        .map(|ttl| format!(" for {}", duration_text(ttl)))
        .unwrap_or_default();
    print::note(
        context,
        format_args!(
            "{}: {} put{ttl} as version {version}",
            args.namespace,
            bytes::escape(args.key.as_bytes()),
        ),
    );
    Ok(())
}

fn delete(context: &Context, args: &StateDelete) -> Result<()> {
    let mut keys = args
        .keys
        .iter()
        .map(|key| bytes::parse(key, args.hex))
        .collect::<Result<Vec<_>, _>>()?;
    keys.sort_unstable();
    keys.dedup();
    let store = context.open_existing_store()?;
    let state = existing(&store, &args.namespace)?;
    let found = state.get_many(&keys)?;
    let num_missing = found.iter().filter(|value| value.is_none()).count();
    let num_deleted = keys.len() - num_missing;
    let version = if num_deleted > 0 {
        state.delete_many(&keys)?
    } else {
        store.version()
    };
    close_store(store);
    if context.json {
        return print::result(serde_json::json!({
            "namespace": args.namespace,
            "keys_deleted": num_deleted,
            "keys_not_found": num_missing,
            "version": version.number,
        }));
    }
    print::note(
        context,
        format_args!(
            "{}: {} deleted, {} were not there; version {version}",
            args.namespace,
            print::counted(num_deleted as u64, "key"),
            HumanCount(num_missing as u64)
        ),
    );
    Ok(())
}

fn scan(context: &Context, args: &StateScan) -> Result<()> {
    let wanted = |text: &Option<String>| {
        text.as_ref()
            .map(|text| bytes::parse(text, args.hex))
            .transpose()
    };
    let mut scan = match (
        wanted(&args.prefix)?,
        wanted(&args.start)?,
        wanted(&args.end)?,
    ) {
        (Some(prefix), _, _) => Scan::prefix(prefix),
        (None, start, Some(end)) => Scan::range(start.unwrap_or_default(), end),
        (None, start, None) => Scan::from(start.unwrap_or_default()),
    };
    if let Some(limit) = args.limit {
        scan = scan.limit(limit);
    }
    if args.reverse {
        scan = scan.reverse();
    }
    let store = context.read_store()?;
    let state = existing(&store, &args.namespace)?;
    print::results(state.scan(&scan)?.map(|entry| {
        let (key, value) = entry.map_err(Failure::from)?;
        Ok(if context.json {
            entry_json(&key, &value, args.hex)
        } else if args.hex {
            format!("{}\t{}", bytes::hex(&key), bytes::hex(&value))
        } else {
            format!("{}\t{}", bytes::escape(&key), bytes::escape(&value))
        })
    }))
}

/// One entry as an object on one line.
fn entry_json(key: &[u8], value: &[u8], is_hex: bool) -> String {
    let mut object = serde_json::Map::new();
    bytes::put_json(&mut object, "key", key, is_hex);
    bytes::put_json(&mut object, "value", value, is_hex);
    serde_json::Value::Object(object).to_string()
}

fn list(context: &Context) -> Result<()> {
    let store = context.read_store()?;
    let names = store.namespaces();
    if names.is_empty() && !context.json {
        print::note(
            context,
            format_args!("no keyed state in {}", context.store_dir.display()),
        );
        return Ok(());
    }
    let mut num_entries = Vec::with_capacity(names.len());
    let mut stored_bytes = Vec::with_capacity(names.len());
    for name in &names {
        let state = store.state(name)?;
        num_entries.push(Some(state.len()?));
        stored_bytes.push(state.stats()?.stored_bytes);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("namespace", Arc::new(StringArray::from_iter_values(&names))),
        ("entries", counts(context, num_entries.into_iter())),
        ("stored_bytes", Arc::new(UInt64Array::from(stored_bytes))),
    ];
    print_listing(context, columns)
}

fn clear(context: &Context, args: &Namespace) -> Result<()> {
    let store = context.open_existing_store()?;
    let state = existing(&store, &args.namespace)?;
    let num_entries = state.len()?;
    let version = state.clear()?;
    close_store(store);
    if context.json {
        return print::result(serde_json::json!({
            "namespace": args.namespace,
            "keys_deleted": num_entries,
            "version": version.number,
        }));
    }
    print::note(
        context,
        format_args!(
            "{}: {} deleted; version {version}",
            args.namespace,
            print::counted(num_entries, "key")
        ),
    );
    Ok(())
}

fn stats(context: &Context, args: &Namespace) -> Result<()> {
    let store = context.read_store()?;
    let state = existing(&store, &args.namespace)?;
    // First, so that the entries have been read when it is said where they are.
    let num_entries = state.len()?;
    let NamespaceStats {
        memory_bytes,
        is_resident,
        num_pages,
        stored_bytes,
        ..
    } = state.stats()?;
    if context.json {
        return print::result(serde_json::json!({
            "namespace": args.namespace,
            "entries": num_entries,
            "is_resident": is_resident,
            "memory_bytes": memory_bytes,
            "pages": num_pages,
            "bytes": stored_bytes,
        }));
    }
    let memory = match memory_bytes {
        Some(num_bytes) => format!("{}, all entries", HumanBytes(num_bytes)),
        None => "too many entries for memory; read from pages".to_owned(),
    };
    print::result(
        [
            format!("namespace  {}", args.namespace),
            format!("entries    {}", HumanCount(num_entries)),
            format!("memory     {memory}"),
            format!(
                "pages      {} as of the last checkpoint, {}",
                HumanCount(num_pages),
                HumanBytes(stored_bytes)
            ),
        ]
        .join("\n"),
    )
}
