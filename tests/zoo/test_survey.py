"""The table of all rows of the four papers, against the papers' own and against the records of the networks."""

import collections
import re

import pytest

from larq_rep import zoo
from larq_rep.zoo import catalog
from larq_rep.zoo.survey import SURVEY, calls

# How many rows with numbers of a network the tables have.
ROWS = {
    "BinaryDenseNet": [11, 8, 6, 4, 3, 12, 4, 5],
    "ReActNet": [29, 9],
    "RepBNN": [2, 8, 8, 6, 8, 4, 20, 12],
    "PresB-Net": [6, 7, 9, 4, 7],
}
PLACES = re.compile(rf"({'|'.join(ROWS)}), (Tables [0-9](?:, [0-9]|(?: to | and )[0-9])*|Table [0-9]|section [0-9.]+)")
# What only Rep networks take; these arguments are part of no published form.
OF_REP = {"beta", "last_layer", "stem", "bn"}


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+", text)]


def places(source):
    """The tables that the source of a result names: ("RepBNN", "Table 2") and so on."""
    for paper, named in PLACES.findall(source):
        if named.startswith("section"):
            yield f"{paper}, {named}"
            continue
        for first, last in re.findall(r"([0-9])(?: to ([0-9]))?", named):
            yield from (f"{paper}, Table {number}" for number in range(int(first), int(last or first) + 1))


def published():
    return [
        (name, variant, result)
        for name in zoo.list_models()
        for variant in zoo.get_network(name).variants
        for result in variant.results
    ]


def builds(row, name, variant):
    return any(
        called == name and variant in zoo.get_network(name).forms(arguments) for called, arguments in calls(row.network)
    )


def test_places():
    assert list(places("RepBNN, Tables 2 to 4 and 7")) == [f"RepBNN, Table {number}" for number in (2, 3, 4, 7)]
    assert list(places("HWGQ; ReActNet, Table 1")) == ["ReActNet, Table 1"]
    assert list(places("BinaryDenseNet, Table 5, 8 blocks")) == ["BinaryDenseNet, Table 5"]
    assert list(places("BinaryDenseNet, section 4.3")) == ["BinaryDenseNet, section 4.3"]
    assert not list(places("README of the code"))


def test_no_table_lacks_a_row():
    found = collections.Counter(row.table for row in SURVEY if ", Table " in row.table)
    expected = {f"{paper}, Table {n}": count for paper, counts in ROWS.items() for n, count in enumerate(counts, 1)}
    assert found == expected
    assert len({(row.table, row.row) for row in SURVEY}) == len(SURVEY)


@pytest.mark.parametrize("network", dict.fromkeys(row.network for row in SURVEY if row.network))
def test_every_call_is_a_published_form(network):
    assert calls(network)
    for name, arguments in calls(network):
        record = zoo.get_network(name)
        record.check(arguments)
        published = {key: value for key, value in arguments.items() if key not in OF_REP or not record.base}
        assert published in [dict(form.arguments) for form in record.variants]


def test_every_row_has_a_network_or_a_reason():
    for row in SURVEY:
        assert row.network or row.note, row
        assert row.row and row.printed and "|" not in "".join(row), row


@pytest.mark.parametrize("name, variant, result", [case for case in published() if list(places(case[2].source))])
def test_every_result_is_a_row(name, variant, result):
    """A row of its network in that table prints the accuracy; the one of the best 5, too, if it prints two."""
    for table in places(result.source):
        rows = [row for row in SURVEY if row.table == table and builds(row, name, variant)]
        printed = [numbers(row.printed) for row in rows if result.top5 is None or " / " in row.printed]
        printed = printed or [[*numbers(row.printed), result.top5] for row in rows]
        wanted = {result.top1} | ({result.top5} if result.top5 else set())
        assert any(wanted <= set(found) for found in printed), (table, result, rows)


def test_no_accuracy_is_printed_wrongly():
    """A row's first number is a result of the network, as this or another paper rounds it; larq_zoo has its own."""
    compared = 0
    for row in SURVEY:
        for name, arguments in calls(row.network):
            forms = zoo.get_network(name).forms(arguments)
            known = [result.top1 for form in forms for result in form.results if form.source != "larq_zoo"]
            if known and re.match(r"\d+\.\d+($|;| /| \(best)", row.printed) and "first phase" not in row.note:
                compared += 1
                assert any(abs(numbers(row.printed)[0] - top1) < 0.051 for top1 in known), (row, known)
    assert compared > 120


def test_operations_that_are_plotted():
    """BinaryDenseNet, Figure 4 divides BOPs by 32; neither it nor 1.63e8 of ReActNet's Table 1 has the classifier."""
    costs, classifier = catalog.stored_costs(), 512000
    for network, expected in (
        ("ResNet18(method='xnor')", 189665280),
        ("BiRealNet18()", 189665280),
        ("ABCNet18(weight_bases=5, input_bases=5)", 1442660352),
    ):
        assert costs[network]["flops"] - classifier + costs[network]["bops"] / 32 == expected
    assert costs["BiRealNet18()"]["ops"] - classifier == 163473408


# Other strides, more operations of gates, and a sum that is not that of the paper's own BOPs / 64 and FLOPs.
OTHERWISE = {"Bi-RealNet-152": ("BOPs", "FLOPs", "OPs"), "Real-to-Binary Net": ("FLOPs", "OPs"), "ReActNet-B": ("OPs",)}


def test_printed_operations_are_those_counted():
    """Those that are printed in full to the last digit, rounded ones within 3 %: some leave out the classifier."""
    costs, compared = catalog.stored_costs(), 0
    for row in (row for row in SURVEY if row.network in costs):
        for number, unit in re.findall(r"([0-9.]+(?:e[0-9]+)?) (BOPs|FLOPs|OPs)", row.printed):
            tolerance = 0.03 if "e" in number else 0
            agrees = costs[row.network][unit.lower()] == pytest.approx(float(number), rel=tolerance)
            assert agrees == (unit not in OTHERWISE.get(row.row, ())), (row, unit)
            compared += 1
    assert compared >= 38
