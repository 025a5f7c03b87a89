"""Results of trainings, finished or not, beside those of the ECA-Net paper."""

from mmdet_attn.commands.compare_results import main

if __name__ == '__main__':
    main()
