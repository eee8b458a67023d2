use super::*;

const CHANGE: Change<'static> = Change { node_name: "node", timestamp: "2026-01-01T00:00:00.000000Z" };

fn surroundings() -> Surroundings<'static> {
    Surroundings { environment: &|_| None, avro: false }
}

fn definition(id: &str) -> Value {
    json!({
        "id": id, "name": id, "proxy": { "target_url": "localhost", "port": 1 }, "owner": "me",
        "version_data": { "default": { "endpoints": [{ "id": "e", "method": "GET", "path_regex": format!("/{id}") }] } },
    })
}

/// Posts a definition and applies it.
fn post(store: &mut Store, body: &Value) -> Result<(), Refusal> {
    store.post(body, CHANGE, &surroundings()).map(|record| store.apply(record))
}

fn put(store: &mut Store, id: &str, body: &Value) -> Result<(), Refusal> {
    store.put(id, body, CHANGE, &surroundings()).map(|record| store.apply(record))
}

fn delete(store: &mut Store, id: &str) -> Result<(), Refusal> {
    store.delete(id, CHANGE).map(|record| store.apply(record))
}

fn shown(store: &Store, id: &str) -> Value {
    store.active(id).expect("it is active").to_json()
}

#[test]
fn a_new_api_is_shown_with_what_rig_adds_and_everything_it_had() {
    let mut store = Store::default();
    post(&mut store, &definition("x")).expect("it is taken");
    let mut expected = definition("x");
    expected["auth"] = json!({ "use_header": false, "header_name": "", "use_query": false, "query_name": "" });
    for (name, value) in [
        ("auth_type", json!("none")),
        ("versioned", json!(false)),
        ("active", json!(true)),
        ("ref_number", json!(0)),
        ("timestamp", json!(CHANGE.timestamp)),
        ("node_name", json!("node")),
    ] {
        expected[name] = value;
    }
    assert_eq!(shown(&store, "x"), expected);
}

#[test]
fn an_id_that_is_taken_is_refused_until_its_api_is_deleted() {
    let mut store = Store::default();
    post(&mut store, &definition("x")).expect("it is taken");
    let refusal = post(&mut store, &definition("x")).expect_err("it is there");
    assert_eq!(refusal.to_string(), "API with id=x already exists.");
    delete(&mut store, "x").expect("it is there");
    for refusal in [delete(&mut store, "x"), put(&mut store, "x", &definition("x"))] {
        assert_eq!(refusal.expect_err("it is gone").to_string(), "API with id=x doesn't exists.");
    }
    assert!(store.routes().is_empty() && store.list().next().is_none());
    post(&mut store, &definition("x")).expect("the id is free");
    assert_eq!(shown(&store, "x")["ref_number"], 2, "the number goes on");
    assert_eq!(store.routes().len(), 1);
}

#[test]
fn a_change_merges_at_the_top_level_and_needs_three_members() {
    let mut store = Store::default();
    let mut first = definition("x");
    first["auth_type"] = json!("jwt");
    post(&mut store, &first).expect("it is taken");
    let change = json!({ "id": "other", "name": "new", "proxy": { "target_url": "h", "port": 2 },
        "version_data": { "default": { "endpoints": [] } }, "extra": 1 });
    put(&mut store, "x", &change).expect("it is valid");
    let changed = shown(&store, "x");
    assert_eq!(changed["id"], "x", "the id of the path counts");
    assert_eq!((&changed["name"], &changed["owner"], &changed["extra"]), (&json!("new"), &json!("me"), &json!(1)));
    assert_eq!(changed["proxy"], json!({ "target_url": "h", "port": 2 }), "members are replaced whole");
    assert_eq!((&changed["auth_type"], &changed["ref_number"]), (&json!("jwt"), &json!(1)));
    for missing in REQUIRED {
        let mut incomplete = change.clone();
        incomplete.as_object_mut().expect("an object").remove(missing);
        let Err(Refusal::Invalid(errors)) = put(&mut store, "x", &incomplete) else { panic!("{missing}") };
        assert!(errors.to_json()["api"][0].get(missing).is_some(), "{errors}");
    }
    assert_eq!(shown(&store, "x"), changed, "what is refused changes nothing");
}

#[test]
fn inactive_is_taken_and_hidden() {
    let mut store = Store::default();
    let mut hidden = definition("x");
    hidden["active"] = json!(false);
    post(&mut store, &hidden).expect("it is taken");
    assert!(matches!(store.active("x"), Err(Refusal::Missing(_))));
    assert!(store.routes().is_empty());
}

#[test]
fn bodies_of_other_types_are_refused() {
    let mut store = Store::default();
    post(&mut store, &definition("x")).expect("it is taken");
    for body in [json!(null), json!([]), json!("x"), json!(5), json!({})] {
        assert!(matches!(post(&mut store, &body), Err(Refusal::Invalid(_))), "{body}");
        assert!(matches!(put(&mut store, "x", &body), Err(Refusal::Invalid(_))), "{body}");
    }
}

#[test]
fn a_stored_record_is_the_same_when_it_is_read_again() {
    let mut store = Store::default();
    post(&mut store, &definition("x")).expect("it is taken");
    delete(&mut store, "x").expect("it is there");
    post(&mut store, &definition("x")).expect("the id is free");
    let stored = shown(&store, "x");
    let (record, errors) = Store::read(stored.to_string().as_bytes(), &surroundings()).expect("a record");
    assert_eq!(errors, None);
    let mut other = Store::default();
    other.apply(record);
    assert_eq!(shown(&other, "x"), stored);
    assert_eq!(other.routes().len(), 1);
}

#[test]
fn a_stored_record_that_this_version_cannot_serve_is_kept_and_does_not_match() {
    let mut foreign = definition("x");
    foreign["version_data"]["default"]["endpoints"][0]["target"] = json!("nats");
    let (record, errors) = Store::read(foreign.to_string().as_bytes(), &surroundings()).expect("a record");
    assert!(errors.is_some());
    let mut store = Store::default();
    store.apply(record);
    assert_eq!(shown(&store, "x"), foreign);
    assert!(store.routes().is_empty());
    for nothing in ["", "5", "{}", "{\"id\":5}", "[]"] {
        assert!(Store::read(nothing.as_bytes(), &surroundings()).is_err(), "{nothing}");
    }
}

#[test]
fn apis_match_in_the_order_of_their_ids() {
    let mut store = Store::default();
    for id in ["b", "a", "c"] {
        post(&mut store, &definition(id)).expect("it is taken");
    }
    let order: Vec<_> = store.routes().iter().map(|route| route.endpoint.api_id.to_string()).collect();
    assert_eq!(order, ["a", "b", "c"]);
}
