"""The contract of ModelInfer of the Open Inference Protocol, kept by Ray Serve."""

from contract import contract

globals().update(
    contract(
        "server/oip/test_inference.py",
        leave_out={
            "test_reflection_describes_the_protocol_too": (
                "reflection is Ray's own, and has one pool of descriptors"
            ),
            "test_predict_and_model_infer_go_through_the_network_together": (
                "statistics are those of one replica, and there may be several"
            ),
        },
    )
)
