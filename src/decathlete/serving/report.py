"""The report of a job: a small page without scripts and without the image."""

from __future__ import annotations

from datetime import UTC, datetime

from jinja2 import Environment

from decathlete.inference.output.provenance import NOTICE, PredictionRecord
from decathlete.serving.model_cache import describe_labels
from decathlete.serving.results import RECORD_FILE, ResultStructures
from decathlete.serving.service import Service

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Segmentation report</title><style>
:root { color-scheme: light dark; } body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto;
padding: 0 1rem; } table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem;
border-bottom: 1px solid #8886; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.warning { border-left: .3rem solid #D55E00; padding: .3rem .8rem; } .swatch { display: inline-block; width: .9rem;
height: .9rem; border-radius: .2rem; vertical-align: -.1rem; margin-right: .5rem; } code { overflow-wrap: anywhere; }
</style></head><body>
<h1>Segmentation report</h1>
<p><strong>{{ notice }}</strong></p>
{% for warning in job.warnings %}<p class="warning" role="alert">{{ warning }}</p>{% endfor %}
<table><thead><tr><th scope="col">Structure</th><th scope="col">Label value</th>
<th scope="col">{{ "Volume (mL)" if in_mL else "Voxels" }}</th></tr>
</thead><tbody>
{% for label in labels %}<tr><td><span class="swatch" style="background:{{ label.color }}"></span>{{ label.name }}
</td><td class="n">{{ label.value }}</td>
<td class="n">{{ "%.3f"|format(job.volumes_ml.get(label.name, 0)) if in_mL else job.voxels.get(label.name, 0) }}
</td></tr>
{% endfor %}</tbody></table>
<h2>Computation</h2>
<table><tbody>
<tr><th scope="row">Model</th><td>{{ job.model }}</td></tr>
<tr><th scope="row">Digest of the model</th><td><code>{{ record.settings.models[0].digest }}</code></td></tr>
<tr><th scope="row">Engine</th><td>{{ engines }} on {{ record.device }}</td></tr>
<tr><th scope="row">Decathlete</th><td>{{ record.decathlete }}</td></tr>
<tr><th scope="row">Kind of image</th><td>{{ job.input_kind }}</td></tr>
<tr><th scope="row">Received</th><td>{{ created }}</td></tr>
<tr><th scope="row">Digest of the image</th><td><code>{{ record.inputs_digest }}</code></td></tr>
<tr><th scope="row">Digest of the label map</th><td><code>{{ record.label_digest }}</code></td></tr>
<tr><th scope="row">Job</th><td><code>{{ job.id }}</code></td></tr>
</tbody></table></body></html>
"""


def make_report(service: Service, job_id: str) -> str:
    """Return the report of a finished job as HTML.

    Raises:
        ServiceError: there is no such job, or it is not done.
    """
    job = service.require_done(job_id)
    with service.files_of(job_id):
        result = service.storage.result_folder(job_id)
        record = PredictionRecord.load(result / RECORD_FILE)
        labels = describe_labels(ResultStructures.of_result(result).labels)
    engines = sorted({f"{use.engine} {use.precision}" for use in record.settings.models})
    return (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            job=job,
            in_mL=bool(job.volumes_ml) or not job.voxels,
            labels=labels,
            record=record,
            engines=", ".join(engines),
            created=datetime.fromtimestamp(job.created, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            notice=NOTICE,
        )
    )
