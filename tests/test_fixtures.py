"""The fixtures of all tests work with mmengine and with its maintained fork."""

from mmengine.config import Config, config
from yapf.yapflib import yapf_api


def test_a_config_is_formatted_once_wherever_the_formatter_is_imported() -> None:
    """mmengine imports it with its module, the fork with every call."""
    first = yapf_api.FormatCode("a=1\n", style_config="pep8")
    assert yapf_api.FormatCode("a=1\n", style_config="pep8") is first and first[0] == "a = 1\n"
    assert getattr(config, "FormatCode", yapf_api.FormatCode) is yapf_api.FormatCode
    assert Config(dict(a=dict(b=1))).pretty_text == "a = dict(b=1)\n"
