"""`energies.parquet`: one row per phase and component."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from director.energy.cells import Ints
from director.energy.component_energy import ComponentEnergy
from director.energy.interval_energy import TERMS


class EnergyTableWriter:
    """Writes the energies of a session's phases, one component after the other.

    Columns: `phase` (row in phases.parquet), `component`, `scope`, `method`, `channel`, `joules`, `expanded_joules`
    (U, k = 2), `mean_watts`, `peak_watts`, `least_watts`, `coverage`, `readings`, `stale`, `missing`, `estimate`, and
    the standard uncertainties `u_meter_joules` … `u_gap_joules`. Null where not known.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = pa.dictionary(pa.int32(), pa.string())
        fields = [("phase", pa.int64()), ("component", names), ("scope", names), ("method", names), ("channel", names)]
        fields += [(c, pa.float64()) for c in ("joules", "expanded_joules", "mean_watts", "peak_watts", "least_watts")]
        fields += [("coverage", pa.float64())] + [(c, pa.int64()) for c in ("readings", "stale", "missing")]
        fields += [("estimate", pa.bool_())] + [(f"u_{term}_joules", pa.float64()) for term in TERMS]
        self._schema = pa.schema(fields)
        self._path = path
        self._part = path.with_name(path.name + ".part")
        texts = ["component", "scope", "method", "channel"]  # numbers hardly repeat, and take long to look up
        self._file = pq.ParquetWriter(self._part, self._schema, compression="zstd", use_dictionary=texts)

    def write(self, energy: ComponentEnergy, phases: Ints) -> None:
        """Append one component's figures for the first intervals, which are these phases; others are left out."""
        import pyarrow as pa

        n = len(phases)
        e = energy.energies

        def number(values: np.ndarray) -> object:
            return pa.array(values[:n], mask=~np.isfinite(values[:n]))

        def text(codes: np.ndarray, words: list[str]) -> object:
            return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))

        same = np.zeros(n, dtype=np.int32)
        chosen = energy.chosen[:n]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = e.joules / (e.duration_ns * 1e-9)
        estimate = np.array([m.channel.estimate for m in energy.methods])[chosen]
        columns = [
            pa.array(phases),
            text(same, [energy.component.name]),
            text(same, [energy.component.scope]),
            text(chosen, [m.name for m in energy.methods]),
            text(chosen, [m.channel.name for m in energy.methods]),
            *(number(x) for x in (e.joules, e.expanded_joules, mean, e.peak_watts, e.least_watts, e.coverage)),
            *(pa.array(x[:n]) for x in (e.readings, e.stale, e.missing)),
            pa.array(estimate),
            *(number(np.where(np.isfinite(e.joules), e.terms[term], np.nan)) for term in TERMS),
        ]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))

    def __enter__(self) -> EnergyTableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._part.rename(self._path)
        else:
            self._part.unlink(missing_ok=True)
