use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_engine::{
    Dimension, DimensionBuilder, Encoding, ErrorKind, JoinKind, JoinSpec, Normalize, OnMiss,
    StarJoin,
};

fn on(spec: &JoinSpec) -> Vec<(&str, Option<&str>)> {
    spec.on
        .iter()
        .map(|on| (on.fact.as_str(), on.key.as_deref()))
        .collect()
}

#[test]
fn text_form_is_read_in_full() {
    let spec = JoinSpec::parse("airports on origin").unwrap();
    assert_eq!(
        (spec.table.as_str(), spec.alias(), spec.kind),
        ("airports", "airports", JoinKind::Left)
    );
    assert_eq!((on(&spec), &spec.select), (vec![("origin", None)], &None));

    let text =
        "INNER \"my table\" As w ON origin = faa , \"a \"\"b\"\"\"=k,t SELECT x as y, \"select\"";
    let spec = JoinSpec::parse(text).unwrap();
    assert_eq!(
        (spec.table.as_str(), spec.alias(), spec.kind),
        ("my table", "w", JoinKind::Inner)
    );
    assert_eq!(
        on(&spec),
        [("origin", Some("faa")), ("a \"b\"", Some("k")), ("t", None)]
    );
    let select: Vec<_> = spec
        .select
        .iter()
        .flatten()
        .map(|s| (s.column.as_str(), s.name.as_deref()))
        .collect();
    assert_eq!(select, [("x", Some("y")), ("select", None)]);

    for (word, kind) in [
        ("semi", JoinKind::Semi),
        ("anti", JoinKind::Anti),
        ("left", JoinKind::Left),
    ] {
        assert_eq!(
            JoinSpec::parse(&format!("{word} t on a")).unwrap().kind,
            kind
        );
    }
    assert_eq!(JoinSpec::parse("\"left\" on a").unwrap().table, "left");
}

#[test]
fn text_form_says_what_becomes_of_keys_and_misses() {
    let text = "d on upper(trim(\"a b\"))=k, cast(c as decimal(10, 2)), x select y \
                on_miss default y=\"no one\", z=-1";
    let spec = JoinSpec::parse(text).unwrap();
    assert_eq!(on(&spec), [("a b", Some("k")), ("c", None), ("x", None)]);
    let cast = Normalize::Cast(DataType::Decimal128(10, 2));
    assert_eq!(
        spec.normalize,
        [vec![Normalize::Trim, Normalize::Upper], vec![cast], vec![]]
    );
    assert_eq!(spec.on_miss, OnMiss::Default);
    let defaults = [("y", "no one"), ("z", "-1")];
    let defaults = defaults.map(|(column, value)| (column.to_owned(), value.to_owned()));
    assert_eq!(spec.defaults, defaults);
    for (word, on_miss) in [
        ("null", OnMiss::Null),
        ("DROP", OnMiss::Drop),
        ("error", OnMiss::Error),
        ("route", OnMiss::Route),
    ] {
        let spec = JoinSpec::parse(&format!("d on a on_miss {word}")).unwrap();
        assert_eq!(spec.on_miss, on_miss);
        assert!(spec.normalize.is_empty());
    }
    for (text, what) in [
        ("d on trum(a)", "`trim`, `upper`"),
        ("d on trim(a", "expected `)`"),
        ("d on cast(a)", "expected `as`"),
        ("d on cast(a as nothing)", "unknown data type"),
        ("d on a on_miss never", "`route` or `default`"),
        ("d on a on_miss default", "expected a column"),
        ("d on a on_miss default b", "expected `=`"),
        ("d on a on_miss default b=", "expected a value"),
        ("d on \"\"", "an empty name"),
    ] {
        let error = JoinSpec::parse(text).unwrap_err();
        assert!(error.message().contains(what), "{text}: {error}");
    }
}

#[test]
fn text_errors_point_at_the_word_and_show_the_grammar() {
    for (text, at, what) in [
        ("", 0, "expected a table"),
        ("inner", 5, "expected a table"),
        ("airports of origin", 9, "expected `as` or `on`"),
        ("airports as a origin", 14, "expected `on`"),
        ("airports on", 11, "expected a fact column"),
        ("airports on origin=", 19, "expected a key column"),
        (
            "airports on origin=faa, select",
            24,
            "expected a fact column",
        ),
        (
            "airports on origin dest",
            19,
            "expected `,`, `select`, `on_miss` or the end",
        ),
        (
            "airports on origin select name as",
            33,
            "expected a new name",
        ),
        ("airports on \"origin", 12, "a quote that is not closed"),
        ("airports on é =, x", 15, "expected a key column"),
    ] {
        let error = JoinSpec::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(what), "{text}: {error}");
        assert!(
            error
                .message()
                .contains(&format!("\n  {}^\n", " ".repeat(at))),
            "{text}: {error}"
        );
        assert!(
            error.message().contains("[left|inner|semi|anti] TABLE"),
            "{error}"
        );
    }
}

fn dimension(name: &str, columns: &[(&str, DataType)], key: &[&str]) -> Arc<Dimension> {
    let fields: Vec<_> = columns
        .iter()
        .map(|(n, t)| Field::new(*n, t.clone(), false))
        .collect();
    let key: Vec<String> = key.iter().map(|&name| name.to_owned()).collect();
    let builder = DimensionBuilder::new(name, Arc::new(Schema::new(fields)), &key).unwrap();
    Arc::new(builder.finish().unwrap())
}

fn fact_schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("name", DataType::Utf8),
        field("carrier", DataType::Utf8),
        field("amount", DataType::Float64),
    ]))
}

fn plan(texts: &[&str]) -> darner_engine::Result<StarJoin> {
    let (int, text) = (DataType::Int64, DataType::Utf8);
    let one = dimension(
        "d",
        &[
            ("id", int.clone()),
            ("name", text.clone()),
            ("size", int.clone()),
        ],
        &["id"],
    );
    let two = dimension(
        "w",
        &[("id", int.clone()), ("carrier", text), ("temp", int)],
        &["id", "carrier"],
    );
    let joins = texts
        .iter()
        .map(|join| {
            let spec = JoinSpec::parse(join).unwrap();
            let dimension = Arc::clone(if spec.table == "w" { &two } else { &one });
            (spec, dimension)
        })
        .collect();
    StarJoin::new(&fact_schema(), None, joins, Encoding::Plain)
}

fn names(join: &StarJoin) -> Vec<String> {
    join.output_schema().fields()[4..]
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

#[test]
fn taken_names_get_the_alias() {
    assert_eq!(names(&plan(&["d on id"]).unwrap()), ["d_name", "size"]);
    let both = plan(&["d on id", "d as e on id"]).unwrap();
    assert_eq!(names(&both), ["d_name", "size", "e_name", "e_size"]);
    let renamed = plan(&["d on id select size as width, id"]).unwrap();
    assert_eq!(names(&renamed), ["width", "d_id"]);
    assert_eq!(names(&plan(&["w on carrier, id"]).unwrap()), ["temp"]);
    assert_eq!(
        names(&plan(&["semi d on id", "anti d on id"]).unwrap()),
        [""; 0]
    );
}

#[test]
fn nullability_follows_the_kind() {
    let nullable = |text: &str| {
        plan(&[text])
            .unwrap()
            .output_schema()
            .field(4)
            .is_nullable()
    };
    assert!(nullable("d on id"));
    assert!(!nullable("inner d on id"));
}

#[test]
fn wrong_plans_are_refused_with_what_is_wrong() {
    for (texts, parts) in [
        (&["d on id", "d on id"][..], &["name=`d_name`", "as"][..]),
        (&["d on id select size as name"], &["name=`name`"]),
        (
            &["d on id select siez"],
            &["did you mean `size`?", "columns=`id, name, size`"],
        ),
        (&["d on idd=id"], &["did you mean `id`?", "column=`idd`"]),
        (&["d on id=size"], &["column=`size`", "key=`id`"]),
        (&["w on id"], &["column=`carrier`", "left out"]),
        (
            &["w on id, amount"],
            &["no such key column", "column=`amount`"],
        ),
        (&["w on id, carrier, id"], &["twice", "column=`id`"]),
        (
            &["d on carrier"],
            &[
                "fact=`carrier`",
                "fact_type=`Utf8`",
                "key=`id`",
                "key_type=`Int64`",
                "cast",
            ],
        ),
        (
            &["d on amount"],
            &[
                "fact=`amount`",
                "fact_type=`Float64`",
                "cast it to an integer or a decimal",
            ],
        ),
        (&["semi d on id select size"], &["adds no columns"]),
    ] {
        let error = plan(texts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        for part in parts {
            assert!(
                error.message().contains(part),
                "{texts:?}: {error}, not {part}"
            );
        }
    }
    let mut spec = JoinSpec::parse("inner d on id").unwrap();
    spec.on_miss = OnMiss::Drop;
    let dimension = dimension("d", &[("id", DataType::Int64)], &["id"]);
    let error = StarJoin::new(
        &fact_schema(),
        None,
        vec![(spec, dimension)],
        Encoding::Plain,
    );
    assert!(error.unwrap_err().message().contains("only a left join"));
}

#[test]
fn fact_select_chooses_and_orders() {
    let select = ["name".to_owned(), "id".to_owned()];
    let spec = JoinSpec::parse("semi d on amount_id=id").unwrap();
    let dimension = dimension("d", &[("id", DataType::Int64)], &["id"]);
    let facts = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("amount_id", Arc::new(Int64Array::from(vec![1]))),
        ("name", Arc::new(StringArray::from(vec!["x"]))),
    ])
    .unwrap();
    let joins = vec![(spec, dimension)];
    let join = StarJoin::new(
        &facts.schema(),
        Some(&select),
        joins.clone(),
        Encoding::Plain,
    )
    .unwrap();
    let names: Vec<_> = join
        .output_schema()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(names, ["name", "id"]);
    // No column at all is a selection too: the batch still has its rows.
    let join = StarJoin::new(&facts.schema(), Some(&[]), vec![], Encoding::Plain).unwrap();
    let joined = join
        .join(&facts, &mut darner_engine::Scratch::default())
        .unwrap();
    assert_eq!(
        (joined.batch.num_columns(), joined.batch.num_rows()),
        (0, 1)
    );
}
