"""Settings come from FINETUNE_ variables; what does not fit is named."""

from pathlib import Path

import pytest

from finetune_operator.runtime.settings import Settings, SettingsError


def test_defaults_work_without_any_variable():
    settings = Settings.from_environment({"PATH": "/bin"})
    assert settings.workers == 24
    assert settings.watch_namespaces == ()
    assert settings.report_names == (
        "finetune-operator.finetune-system.svc",
        "finetune-operator.finetune-system.svc.cluster.local",
        "finetune-operator.finetune-system",
    )


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("FINETUNE_WORKERS", "4", "workers", 4),
        ("FINETUNE_WATCH_NAMESPACES", "team-a, team-b,", "watch_namespaces", ("team-a", "team-b")),
        ("FINETUNE_KUBE_QPS", "50.5", "kube_qps", 50.5),
        ("FINETUNE_TLS_DIR", "/etc/tls", "tls_dir", Path("/etc/tls")),
        ("FINETUNE_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("FINETUNE_WORKERS", "", "workers", 24),
    ],
)
def test_variables_are_read(variable, value, field, expected):
    assert getattr(Settings.from_environment({variable: value}), field) == expected


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"FINETUNE_WORKERS": "many"}, "FINETUNE_WORKERS: Input should be a valid integer"),
        ({"FINETUNE_WORKERS": "0"}, "FINETUNE_WORKERS: Input should be greater than or equal to 1"),
        ({"FINETUNE_LOG_LEVEL": "loud"}, "FINETUNE_LOG_LEVEL: Input should be 'DEBUG', 'INFO'"),
        ({"FINETUNE_WORKRES": "4"}, "FINETUNE_WORKRES: no such setting"),
        ({"FINETUNE_LEASE_RENEW_SECONDS": "20"}, "lease times must rise"),
        ({"FINETUNE_WORKERS": "x", "FINETUNE_KUBE_BURST": "y"}, "FINETUNE_KUBE_BURST"),
    ],
)
def test_what_does_not_fit_is_named(environment, sentence):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    assert sentence in str(caught.value)


def test_what_kubernetes_adds_for_a_service_called_finetune_operator_is_no_setting():
    Settings.from_environment(
        {
            "FINETUNE_OPERATOR_SERVICE_HOST": "10.0.0.1",
            "FINETUNE_OPERATOR_SERVICE_PORT": "443",
            "FINETUNE_OPERATOR_SERVICE_PORT_HTTPS": "443",
            "FINETUNE_OPERATOR_PORT": "tcp://10.0.0.1:443",
            "FINETUNE_OPERATOR_PORT_443_TCP": "tcp://10.0.0.1:443",
            "FINETUNE_OPERATOR_PORT_443_TCP_ADDR": "10.0.0.1",
        }
    )


def test_a_call_outlasts_the_longest_that_kubernetes_lets_a_webhook_take():
    """Who gives up at that very moment never hears which webhook it is that does not answer."""
    longest_timeout_of_a_webhook = 30
    assert Settings().kube_timeout_seconds >= longest_timeout_of_a_webhook + 5


def test_every_setting_says_what_it_is_for():
    assert all(field.description for field in Settings.model_fields.values())
