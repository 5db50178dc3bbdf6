"""Fine-tuning: wins back the accuracy that compression cost.

Read `loop` first. `student` is the model it trains, `machine` what it runs on, `resume` what an
interruption leaves to go on from; `finetune` puts them together.
"""
