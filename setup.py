"""Packaging: metadata, extras, and configs and tools where MIM looks."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
INIT = (ROOT / 'mmdet_attn' / '__init__.py').read_text(encoding='utf-8')


class BuildWithMim(build_py):
    """Copy configs and tools to `mmdet_attn/.mim`, where MIM looks.

    Not for an editable install: there MIM searches the whole clone, and
    refuses a config that it finds twice.
    """

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        for name in ('configs', 'tools'):
            shutil.copytree(
                ROOT / name,
                Path(self.build_lib, 'mmdet_attn', '.mim', name),
                ignore=shutil.ignore_patterns('__pycache__', '*.egg-info'),
                dirs_exist_ok=True,
            )


setup(
    name='mmdet_attn',
    version=re.search(r"__version__ = '(.+)'", INIT)[1],
    description='Channel and spatial attention for MMDetection 3.x: faithful '
    'ECA, SE, CBAM and two dozen relatives as plugins, configs that reproduce '
    'ECA-Net on COCO',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='attention, ECA, SE, CBAM, object detection, MMDetection',
    packages=find_packages(include=['mmdet_attn', 'mmdet_attn.*']),
    package_data={'': ['py.typed', '*.html.j2']},
    # The command lies outside the package, which imports torch at once: help
    # should not wait for that.
    py_modules=['mmdet_attn_cli'],
    package_dir={'': 'tools', 'mmdet_attn': 'mmdet_attn'},
    entry_points={'console_scripts': ['mmdet-attn = mmdet_attn_cli:main']},
    python_requires='>=3.10',
    # OpenMMLab's mmengine has the same import name: its users install with
    # pip's --no-deps.
    install_requires=['torch>=2.6', 'onedl-mmengine>=0.10.12'],
    extras_require={
        'tools': [
            'faster-coco-eval',
            'jinja2',
            'matplotlib',
            'numpy',
            'pillow',
            'pycocotools',
            'rich',
            'scipy',
            'shtab',
            'submitit',
        ],
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmdetection>=3.5.1',
            'faster-coco-eval',
            'pycocotools',
        ],
        'openmmlab': [
            'mmengine>=0.10.7',
            'mmcv>=2.1.0,<2.2.0',  # mmdet 3.3.0 refuses 2.2 at import
            'mmdet>=3.3.0',
            'faster-coco-eval',
            'pycocotools',
        ],
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'docs': [
            'latex2mathml',
            'mkdocs-material',
            'mkdocstrings[python]',
        ],
        'dev': [
            'hypothesis',
            'mypy',
            'onnx',
            'onnxruntime',
            'onnxscript',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
        ],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    cmdclass={'build_py': BuildWithMim},
)
