"""The public names, each with its module: type checkers read this file, and so does the import on first use."""

from .augmentation.config import AugmentationConfig as AugmentationConfig
from .benchmarking.machine import (
    BenchmarkMachine as BenchmarkMachine,
    SoftwareVersions as SoftwareVersions,
)
from .benchmarking.options import BenchmarkOptions as BenchmarkOptions
from .benchmarking.record import (
    BenchmarkRecord as BenchmarkRecord,
    BenchmarkSettings as BenchmarkSettings,
    MemoryUse as MemoryUse,
    Throughput as Throughput,
)
from .benchmarking.run import (
    BenchmarkResult as BenchmarkResult,
    benchmark as benchmark,
)
from .cluster.connection import connect_cluster as connect_cluster
from .cluster.executor import DaskExecutor as DaskExecutor
from .core.geometry import (
    AxisTransform as AxisTransform,
    Geometry as Geometry,
    HeaderCodes as HeaderCodes,
)
from .core.labels import (
    LabelClass as LabelClass,
    LabelSet as LabelSet,
    Region as Region,
)
from .core.latency import Latency as Latency
from .core.parallel import CaseExecutor as CaseExecutor
from .core.progress import CaseProgress as CaseProgress
from .core.registry import ComponentSettings as ComponentSettings
from .core.sliding_window import SlidingWindow as SlidingWindow
from .core.structure_codes import (
    DicomCode as DicomCode,
    StructureCode as StructureCode,
)
from .dataset.check_report import (
    CheckReport as CheckReport,
    Problem as Problem,
)
from .dataset.conversion.plain_sources import FileNames as FileNames
from .dataset.conversion.run import ConversionResult as ConversionResult
from .dataset.download import download as download
from .dataset.manifest import read_dataset as read_dataset
from .dataset.plain_folders import PlainDataset as PlainDataset
from .dataset.spec import (
    Case as Case,
    DatasetSpec as DatasetSpec,
)
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
from .evaluation.comparison import Difference as Difference
from .evaluation.cross_validation import (
    ClassMeans as ClassMeans,
    CrossValidation as CrossValidation,
    FoldScores as FoldScores,
    Spread as Spread,
)
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.metric_info import MetricInfo as MetricInfo
from .evaluation.metrics import Metric as Metric
from .evaluation.origin import ScoresOrigin as ScoresOrigin
from .evaluation.scores import (
    CaseScores as CaseScores,
    ClassScores as ClassScores,
    ClassSummary as ClassSummary,
    Headline as Headline,
    MetricStatistics as MetricStatistics,
    Scores as Scores,
)
from .export.exporters import ExportResult as ExportResult
from .export.exporters.triton import TritonRepository as TritonRepository
from .export.programs import ExportedProgram as ExportedProgram
from .export.triton_options import TritonSettings as TritonSettings
from .inference.exported_program import (
    ProgramRecord as ProgramRecord,
    Quantisation as Quantisation,
)
from .inference.options import PredictOptions as PredictOptions
from .inference.output.dicom.result import DicomOptions as DicomOptions
from .inference.output.output_kind import OutputKind as OutputKind
from .inference.output.probabilities import ProbabilityStore as ProbabilityStore
from .inference.output.provenance import (
    ModelUse as ModelUse,
    PredictionRecord as PredictionRecord,
    RecordedSettings as RecordedSettings,
)
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
from .io.dicom_label import LabelStructures as LabelStructures
from .models.bundle import (
    BundleMember as BundleMember,
    ModelBundle as ModelBundle,
    TrainedMember as TrainedMember,
)
from .models.combine import combine_bundles as combine_bundles
from .models.record import (
    Combination as Combination,
    ComponentOrigin as ComponentOrigin,
    MemberRecord as MemberRecord,
    ModelRecord as ModelRecord,
    NetworkRecord as NetworkRecord,
    PostprocessingStep as PostprocessingStep,
)
from .planning.explain import explain as explain
from .planning.fingerprint import (
    CaseFingerprint as CaseFingerprint,
    Fingerprint as Fingerprint,
    IntensityStatistics as IntensityStatistics,
)
from .planning.network_spec import NetworkSpec as NetworkSpec
from .planning.options import PlanOptions as PlanOptions
from .planning.overrides import preset_options as preset_options
from .planning.plan import (
    CoarseStart as CoarseStart,
    Plan as Plan,
    Range as Range,
    Resampling as Resampling,
    TrainingRanges as TrainingRanges,
)
from .preprocessing.store import (
    PreparedStore as PreparedStore,
    StoredCase as StoredCase,
)
from .serving.dicom_node.settings import (
    DicomNodeSettings as DicomNodeSettings,
    Peer as Peer,
)
from .serving.http.server import serve as serve
from .serving.settings import (
    ModelSource as ModelSource,
    ServiceLimits as ServiceLimits,
    ServiceSettings as ServiceSettings,
)
from .serving.triton.benchmark import (
    BenchmarkReport as BenchmarkReport,
    BenchmarkRow as BenchmarkRow,
    TritonBenchmarkOptions as TritonBenchmarkOptions,
    triton_benchmark as triton_benchmark,
)
from .serving.triton.comparison import CaseComparison as CaseComparison
from .serving.triton.load import LoadOptions as LoadOptions
from .serving.triton.protocol import ClientOptions as ClientOptions
from .serving.triton.server import (
    TritonServerOptions as TritonServerOptions,
    triton_start as triton_start,
)
from .serving.triton.verify import (
    ModelVerification as ModelVerification,
    Thresholds as Thresholds,
    TritonVerifyOptions as TritonVerifyOptions,
    VerificationReport as VerificationReport,
    triton_verify as triton_verify,
)
from .synthetic.brain_cohort import CohortOptions as CohortOptions
from .training.config import (
    TrainConfig as TrainConfig,
    ValidationConfig as ValidationConfig,
)
from .training.objective.optimizers import OptimizerSettings as OptimizerSettings
from .training.reporting.progress import TrainingProgress as TrainingProgress
from .training.results import TrainResult as TrainResult
from .transfer.http import Patience as Patience
from .workflows.check import check as check
from .workflows.components import (
    ComponentInfo as ComponentInfo,
    SettingInfo as SettingInfo,
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
from .workflows.fold import (
    FoldResult as FoldResult,
    PipelineOptions as PipelineOptions,
)
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
from .workflows.selection.record import (
    CandidateRecord as CandidateRecord,
    PostprocessingDecision as PostprocessingDecision,
    Selection as Selection,
    StepDecision as StepDecision,
)
from .workflows.selection.result import SelectResult as SelectResult
from .workflows.selection.select import select as select
from .workflows.train import (
    train as train,
    train_config as train_config,
)
from .workflows.validate import validate as validate
from .workflows.workspace import Workspace as Workspace

__version__: str
