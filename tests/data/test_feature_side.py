from ranker.data.feature_side import names_on, side_of
from ranker.schema import FeatureSpec, Schema


def test_what_a_feature_is_a_function_of(synthetic_schema: Schema) -> None:
    def feature(**fields: object) -> FeatureSpec:
        return FeatureSpec.model_validate({"name": "x", "kind": "numeric", **fields})

    assert side_of(feature(owner="user"), synthetic_schema) == "request"
    assert side_of(feature(owner="user", transform="age_days"), synthetic_schema) == "request"
    assert side_of(feature(owner="context", column="item_id"), synthetic_schema) == "pair"
    assert side_of(feature(owner="item"), synthetic_schema) == "item"
    assert side_of(feature(owner="item", transform="age_days"), synthetic_schema) == "pair"
    assert side_of(feature(owner="item", column="user_id"), synthetic_schema) == "pair"
    assert "item_count" in names_on("item", synthetic_schema)
    sides = {f.name: side_of(f, synthetic_schema) for f in synthetic_schema.history_features}
    assert sides["history_item"] == sides["query_item_age_s"] == sides["user_count"] == "request"
    assert sides["item_count"] == sides["topic_like_rate"] == "item"
    assert sides["query_same_topic"] == sides["user_x_topic_count"] == "pair"
