"""The public names, each with its module: type checkers read this file, and so does the import on first use."""

from .augmentation.config import AugmentationConfig as AugmentationConfig
from .benchmarking.options import BenchmarkOptions as BenchmarkOptions
from .benchmarking.run import (
    BenchmarkResult as BenchmarkResult,
    benchmark as benchmark,
)
from .cluster.connection import connect_cluster as connect_cluster
from .core.geometry import Geometry as Geometry
from .core.labels import LabelSet as LabelSet
from .core.sliding_window import SlidingWindow as SlidingWindow
from .dataset.check_report import CheckReport as CheckReport
from .dataset.conversion.plain_sources import FileNames as FileNames
from .dataset.download import download as download
from .dataset.manifest import read_dataset as read_dataset
from .dataset.spec import DatasetSpec as DatasetSpec
from .errors import (
    ArchiveError as ArchiveError,
    CasesFailedError as CasesFailedError,
    ClusterError as ClusterError,
    DatasetError as DatasetError,
    DecathleteError as DecathleteError,
    DownloadError as DownloadError,
    FoldsFailedError as FoldsFailedError,
    GridMismatchError as GridMismatchError,
    ImageError as ImageError,
    InsufficientMemoryError as InsufficientMemoryError,
    InterruptedRunError as InterruptedRunError,
    ManifestError as ManifestError,
    MissingPackageError as MissingPackageError,
    ModelError as ModelError,
    NotAnImageError as NotAnImageError,
    OptionError as OptionError,
    OutputError as OutputError,
    PlanError as PlanError,
    ServiceError as ServiceError,
    StoreError as StoreError,
    TritonError as TritonError,
)
from .evaluation.cross_validation import CrossValidation as CrossValidation
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.scores import (
    CaseScores as CaseScores,
    Scores as Scores,
)
from .export.exporters import ExportResult as ExportResult
from .export.exporters.triton import TritonRepository as TritonRepository
from .export.programs import ExportedProgram as ExportedProgram
from .export.triton_options import TritonSettings as TritonSettings
from .inference.options import PredictOptions as PredictOptions
from .inference.output.dicom.result import DicomOptions as DicomOptions
from .inference.output.output_kind import OutputKind as OutputKind
from .inference.predict import Predictor as Predictor
from .inference.predict_files import PredictedFile as PredictedFile
from .inference.prediction import Prediction as Prediction
from .interop.dynunet import (
    DynUNetImportResult as DynUNetImportResult,
    import_dynunet as import_dynunet,
)
from .interop.dynunet_options import DynUNetOptions as DynUNetOptions
from .interop.nnunet import (
    NnUNetImportResult as NnUNetImportResult,
    import_nnunet as import_nnunet,
)
from .interop.nnunet_export import (
    NnUNetExportResult as NnUNetExportResult,
    export_nnunet as export_nnunet,
)
from .models.bundle import (
    ModelBundle as ModelBundle,
    TrainedMember as TrainedMember,
)
from .models.combine import combine_bundles as combine_bundles
from .models.record import (
    Combination as Combination,
    ModelRecord as ModelRecord,
    PostprocessingStep as PostprocessingStep,
)
from .planning.explain import explain as explain
from .planning.fingerprint import Fingerprint as Fingerprint
from .planning.options import PlanOptions as PlanOptions
from .planning.overrides import preset_options as preset_options
from .planning.plan import Plan as Plan
from .preprocessing.store import PreparedStore as PreparedStore
from .serving.dicom_node.settings import DicomNodeSettings as DicomNodeSettings
from .serving.http.server import serve as serve
from .serving.settings import (
    ModelSource as ModelSource,
    ServiceLimits as ServiceLimits,
    ServiceSettings as ServiceSettings,
)
from .serving.triton.benchmark import (
    TritonBenchmarkOptions as TritonBenchmarkOptions,
    triton_benchmark as triton_benchmark,
)
from .serving.triton.server import (
    TritonServerOptions as TritonServerOptions,
    triton_start as triton_start,
)
from .serving.triton.verify import (
    TritonVerifyOptions as TritonVerifyOptions,
    triton_verify as triton_verify,
)
from .synthetic.brain_cohort import CohortOptions as CohortOptions
from .training.config import (
    TrainConfig as TrainConfig,
    ValidationConfig as ValidationConfig,
)
from .training.results import TrainResult as TrainResult
from .workflows.check import check as check
from .workflows.components import (
    ComponentInfo as ComponentInfo,
    components as components,
)
from .workflows.convert import convert as convert
from .workflows.cross_validate import (
    CrossValidationResult as CrossValidationResult,
    cross_validate as cross_validate,
)
from .workflows.demo import (
    DemoResult as DemoResult,
    demo as demo,
)
from .workflows.export_int8 import (
    Int8Program as Int8Program,
    export_int8 as export_int8,
)
from .workflows.export_model import (
    export_model as export_model,
    export_onnx as export_onnx,
    export_openvino as export_openvino,
)
from .workflows.export_triton import export_triton as export_triton
from .workflows.fold import FoldResult as FoldResult
from .workflows.merge import merge_datasets as merge_datasets
from .workflows.plain_dataset import describe_folders as describe_folders
from .workflows.predict import predict as predict
from .workflows.prepare_for_model import prepare_for_model as prepare_for_model
from .workflows.preprocess import preprocess as preprocess
from .workflows.progress import ProgressReporter as ProgressReporter
from .workflows.report import report as report
from .workflows.run import (
    RunResult as RunResult,
    run as run,
)
from .workflows.run_configurations import (
    ConfigurationsResult as ConfigurationsResult,
    run_configurations as run_configurations,
)
from .workflows.selection.record import Selection as Selection
from .workflows.selection.result import SelectResult as SelectResult
from .workflows.selection.select import select as select
from .workflows.train import (
    train as train,
    train_config as train_config,
)
from .workflows.validate import validate as validate
from .workflows.workspace import Workspace as Workspace

__version__: str
