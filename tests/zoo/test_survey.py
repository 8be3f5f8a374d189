"""The table of all rows of the four papers, against the papers' own and against the records of the networks."""

import collections
import re

import pytest

from larq_rep import zoo
from larq_rep.zoo.survey import SURVEY, call

# How many rows with numbers of a network the tables have.
ROWS = {
    "BinaryDenseNet": [11, 8, 6, 4, 3, 12, 4, 5],
    "ReActNet": [29, 9],
    "RepBNN": [2, 8, 8, 6, 8, 4, 20, 12],
    "PresB-Net": [6, 7, 9, 4, 7],
}
PLACES = re.compile(rf"({'|'.join(ROWS)}), (Tables? [0-9](?:, [0-9]|(?: to | and )[0-9])*|section [0-9.]+)")
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


def builds(network, name, variant):
    called, arguments = call(network)
    return called == name and variant in zoo.get_network(name).forms(arguments)


def test_places():
    assert list(places("RepBNN, Tables 2 to 4 and 7")) == [f"RepBNN, Table {number}" for number in (2, 3, 4, 7)]
    assert list(places("HWGQ; ReActNet, Table 1")) == ["ReActNet, Table 1"]
    assert list(places("BinaryDenseNet, section 4.3")) == ["BinaryDenseNet, section 4.3"]
    assert not list(places("README of the code"))


def test_no_table_lacks_a_row():
    found = collections.Counter(row.table for row in SURVEY if ", Table " in row.table)
    expected = {f"{paper}, Table {n}": count for paper, counts in ROWS.items() for n, count in enumerate(counts, 1)}
    assert found == expected
    assert len({(row.table, row.row) for row in SURVEY}) == len(SURVEY)


@pytest.mark.parametrize("network", dict.fromkeys(row.network for row in SURVEY if row.network))
def test_every_call_is_a_published_form(network):
    name, arguments = call(network)
    record = zoo.get_network(name)
    record.check(arguments)
    published = {key: value for key, value in arguments.items() if key not in OF_REP or not name.startswith("Rep")}
    assert published in [dict(form.arguments) for form in record.variants]


def test_every_row_has_a_network_or_a_reason():
    for row in SURVEY:
        assert row.network or row.note, row
        assert row.row and row.printed and "|" not in "".join(row), row


@pytest.mark.parametrize("name, variant, result", [case for case in published() if list(places(case[2].source))])
def test_every_result_is_a_row(name, variant, result):
    """A table's row has the same numbers; rows of one network may print several."""
    for table in places(result.source):
        rows = [row for row in SURVEY if row.table == table and row.network and builds(row.network, name, variant)]
        wanted = {result.top1} | ({result.top5} if result.top5 else set())
        assert any(wanted <= set(numbers(row.printed)) for row in rows), (table, result, rows)


def test_no_accuracy_is_printed_wrongly():
    """Of networks with a record, each row's first number is a result of the network, or of a first phase."""
    for row in SURVEY:
        if not row.network or not re.match(r"\d+\.\d+", row.printed) or "first phase" in row.note:
            continue
        name, given = call(row.network)
        known = {result.top1 for form in zoo.get_network(name).forms(given) for result in form.results}
        printed = numbers(row.printed)[0]
        assert any(abs(printed - top1) < 0.06 for top1 in known), (row, known)
