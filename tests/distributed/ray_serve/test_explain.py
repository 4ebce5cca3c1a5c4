"""The contract of Explain, kept by Ray Serve."""

from contract import contract

_OWN_SERVER = "it needs a server of its own, with other models or settings"

globals().update(
    contract(
        "server/grpc_api/test_explain.py",
        leave_out={
            "test_the_darkest_value_of_a_models_range_is_the_baseline": _OWN_SERVER,
            "test_an_explanation_in_parts_is_the_same_as_each_image_alone": _OWN_SERVER,
            "test_reproducible_explanations_have_the_same_bits_in_any_company": _OWN_SERVER,
            "test_it_is_counted_by_its_name": "it looks into the server's own process",
        },
    )
)
