"""The contract of PredictionService, kept by Ray Serve."""

from contract import contract

_IN_PROCESS = "it changes the server in the test's own process"
_OWN_SERVER = "it is about the ports, the stop or a setting of our own server"
_NO_WATCH = "a watch of health would be an open request of a replica"
_RAYS_REFLECTION = "reflection is Ray's own, and has one pool of descriptors"
_OF_REFLECTION = (
    "test_calls_of_reflection_over_the_limit_are_refused_and_others_are_answered_meanwhile"
)

globals().update(
    contract(
        "server/grpc_api/test_predict.py",
        leave_out={
            "test_a_fault_of_the_server_shows_nothing_of_its_inside": _IN_PROCESS,
            "test_reflection_shows_the_contract_to_tools_that_do_not_have_it": _RAYS_REFLECTION,
            "test_a_health_watch_sees_the_server_stop_and_open_calls_are_answered": _NO_WATCH,
            "test_a_port_that_is_taken_is_said_to_be": _OWN_SERVER,
            _OF_REFLECTION: _RAYS_REFLECTION,
            "test_a_watch_of_health_does_not_keep_a_server_from_stopping": _NO_WATCH,
            "test_a_batch_limit_that_no_message_can_carry_is_said_to_be_what_one_can": _OWN_SERVER,
            "test_a_setting_out_of_its_range_is_refused_by_name": _OWN_SERVER,
        },
    )
)
