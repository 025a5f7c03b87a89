"""Detections as labels, to be corrected by hand and trained with."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmdet_attn.errors import InputError

LAYOUTS = ('coco', 'yolo')


def check_labels_out(folder: str | None) -> None:
    """Refuse a folder with files, which may be corrected labels.

    Raises:
        InputError: The folder has files, or is a file itself.
    """
    if folder is None:
        return
    path = Path(folder)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(
            f'--labels-out {folder} exists and is not an empty folder: give a '
            'new one, so that no corrected labels are overwritten.'
        )


class PreLabels:
    """The labels of a set of images.

    Args:
        classes: The names of the classes.
        score_thr: Detections with a lower score are left out.

    Raises:
        InputError: There are no classes.
    """

    def __init__(self, classes: Sequence[str], score_thr: float) -> None:
        if not classes:
            raise InputError(
                '--labels-out needs the names of the classes, which neither '
                'the checkpoint nor the config has: set metainfo of '
                'test_dataloader.dataset in the config.'
            )
        self.score_thr = score_thr
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.categories = [
            {'id': number, 'name': name}
            for number, name in enumerate(classes, 1)
        ]

    def add(self, found: dict) -> None:
        """Add an image.

        Args:
            found: What `predict.py` writes for it.
        """
        width, height = found['width'], found['height']
        image = {
            'id': len(self.images) + 1,
            'file_name': Path(found['image']).name,
            'width': width,
            'height': height,
        }
        self.images.append(image)
        for index, (x1, y1, x2, y2) in enumerate(found['bboxes']):
            score = found['scores'][index]
            x1, x2 = (round(min(max(x, 0), width), 2) for x in (x1, x2))
            y1, y2 = (round(min(max(y, 0), height), 2) for y in (y1, y2))
            # MMDetection leaves out boxes under one pixel.
            if score < self.score_thr or min(x2 - x1, y2 - y1) < 1:
                continue
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            label = {
                'id': len(self.annotations) + 1,
                'image_id': image['id'],
                'category_id': found['labels'][index] + 1,
                'bbox': box,
                'area': round(box[2] * box[3], 2),
                'iscrowd': 0,
                'segmentation': [],
                'score': score,
            }
            if 'masks' in found:
                from pycocotools.mask import area

                mask = found['masks'][index]
                label |= {'segmentation': mask, 'area': float(area(mask))}
            self.annotations.append(label)

    def write(self, folder: Path, layout: str) -> None:
        """Write all labels.

        Args:
            folder: The folder, which is made.
            layout: `'coco'` for `instances.json`; `'yolo'` for `classes.txt`
                and a file in `labels/` for each image.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if layout == 'coco':
            content = {
                'images': self.images,
                'categories': self.categories,
                'annotations': self.annotations,
            }
            (folder / 'instances.json').write_text(json.dumps(content))
            return
        names = [f'{category["name"]}\n' for category in self.categories]
        (folder / 'classes.txt').write_text(''.join(names))
        (folder / 'labels').mkdir()
        lines: dict[int, list[str]] = {x['id']: [] for x in self.images}
        for label in self.annotations:
            image = self.images[label['image_id'] - 1]
            x, y, w, h = label['bbox']
            numbers = (
                (x + w / 2) / image['width'],
                (y + h / 2) / image['height'],
                w / image['width'],
                h / image['height'],
            )
            words = [f'{number:.6f}' for number in numbers]
            words.insert(0, str(label['category_id'] - 1))
            lines[image['id']].append(' '.join(words) + '\n')
        for image in self.images:
            file = Path(image['file_name']).with_suffix('.txt').name
            text = ''.join(lines[image['id']])
            (folder / 'labels' / file).write_text(text)
